import pytest
import torch
from reference.published_checks import check_strictness, compare, message, picture
from reference.published_vqgan import Net, Shape, run_vq

SHAPE = Shape(mult=(1, 1, 2), attended=(2,), attended_up=(2,), names="llamagen")
CONFIG = {
    "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "z_channels": 16, "codebook_size": 24,
    "codebook_embed_dim": 8, "l2_norm": True,
}  # fmt: skip


def make(l2=True):
    net, x = Net(), picture(2, 16, 24)
    made = run_vq(net, x, SHAPE, 24, l2=l2)
    return {**net.state, "quantize.codebook_used": torch.zeros(64)}, x, made


@pytest.fixture(scope="module")
def case():
    return make()


@pytest.mark.parametrize("config", [CONFIG, None, {"encoder_ch_mult": [1, 1, 2]}])
def test_it_is_the_reference(case, config):
    state, x, made = case
    tok = compare("llamagen", state, config, x, made)
    norms = tok.quantizer.decode(tok.encode(x).indices).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_codes_need_not_be_normalised():
    state, x, made = make(l2=False)
    compare("llamagen", state, {"codebook_l2_norm": False}, x, made)


def test_averages_and_training_states_are_found(case):
    state, x, made = case
    raw = {key: value + 1 for key, value in state.items()}
    file = {"model": raw, "ema": state, "optimizer": {"state": {}}, "steps": 3, "args": None}
    compare("llamagen", file, CONFIG, x, made)
    wrapped = {"model": {f"module.{key}": value for key, value in state.items()}}
    compare("llamagen", wrapped, CONFIG, x, made)


def test_other_files_are_named(case):
    check_strictness(
        "llamagen", case[0], CONFIG, key="decoder.conv_blocks.1.res.0.conv1.bias",
        shown="decoder.up.1.block.0.conv1.bias",
    )  # fmt: skip
    assert message("llamagen", case[0], {**CONFIG, "codebook_size": 23}) == (
        "from_published('llamagen'): expected codebook_size of 24, as the tensors have it; got 23 "
        "in config. Pass the constructor values of this checkpoint."
    )
