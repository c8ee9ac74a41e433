import pytest
import torch
from reference.published_checks import check_strictness, close, message, picture
from reference.published_vqgan import Net, Shape, decode, encode

import tokenizers_vq
from tokenizers_vq.published import from_published

# a posterior of 4 channels; as in MAR, only the encoder's coarsest level has attention
SIDES = {"attended": (1,), "attended_up": ()}
DOWN, UP = (Shape(z=z, d=z, **SIDES) for z in (8, 4))
NETWORK = {
    "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [16], "dropout": 0.0,
}  # fmt: skip
CONFIG = {"ddconfig": NETWORK, "embed_dim": 4, "lossconfig": {"target": "..."}}


@pytest.fixture(scope="module")
def case():
    net, x = Net(), picture(2, 16, 24)
    mean = encode(net, x, DOWN)[:, :4]
    return net.state, x, mean, decode(net, mean, UP)


@torch.no_grad()
@pytest.mark.parametrize("config", [CONFIG, None, {"embed_dim": 4, "ch_mult": [1, 2]}])
def test_it_is_the_reference(case, config):
    state, x, mean, made = case
    tok = from_published("kl_vae", {**state, "loss.logvar": torch.zeros(())}, config)
    assert close(tok.encoder(x).movedim(-1, 1), mean)
    assert close(tok(x).x_hat, made)


@torch.no_grad()
def test_tokens_come_by_a_fit(case):
    tok = from_published("kl_vae", case[0])
    fine, coarse = (
        tokenizers_vq.fit(tok, [case[1]], {"name": "token_bridge", "bits": bits}) for bits in (8, 1)
    )
    assert fine.encode(case[1]).indices.shape == (2, 8, 12, 4)
    far = [float((one(case[1]).x_hat - case[3]).square().mean()) for one in (fine, coarse)]
    assert far[0] < 0.1 * far[1]


def test_other_files_are_named(case):
    check_strictness("kl_vae", case[0], CONFIG, key="encoder.down.1.attn.0.proj_out.bias")
    where = "from_published('kl_vae'): expected a checkpoint of this family; got "
    assert message("kl_vae", {**case[0], "quantize.embedding.weight": torch.zeros(4, 4)}) == (
        where + "one with a table of codes (family taming)."
    )
    single = {**case[0], "quant_conv.weight": torch.zeros(4, 8, 1, 1)}
    assert message("kl_vae", single) == where + "one whose encoder gives no variance."
    assert message("kl_vae", case[0], {"embed_dim": 8}) == (
        "from_published('kl_vae'): expected embed_dim of 4, as the tensors have it; got 8 in "
        "config. Pass the constructor values of this checkpoint."
    )
