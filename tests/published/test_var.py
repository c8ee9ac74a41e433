import pytest
import torch
from reference.published_checks import check_strictness, compare, message, picture
from reference.published_vqgan import Net, Shape, run_var

from tokenizers_vq.errors import ConfigError

SHAPE = Shape(d=16, attended=(1,), attended_up=(1,), names="var", kernel=3)
CONFIG = {
    "vocab_size": 24, "z_channels": 16, "ch": 32, "v_patch_nums": [1, 2, 3, 5], "quant_resi": 0.5,
    "share_quant_resi": 4, "quant_conv_ks": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def case():
    net, x = Net(), picture(2, 10, 10)
    made = run_var(net, x, SHAPE, [1, 2, 3, 5], 24)
    # with few scales some of the four convolutions are not used, but they are in the file
    for k in range(4):
        net.conv(f"quantize.quant_resi.qresi_ls.{k}", made.latents, 16)
    return net.state, x, made


def test_it_is_the_reference(case):
    state, x, made = case
    tok = compare("var", state, CONFIG, x, made)
    assert tok.encode(x).indices.shape == (2, 1 + 4 + 9 + 25, 1)


def test_scales_must_be_told(case):
    assert message("var", case[0], None, ConfigError) == (
        "from_published('var'): expected the constructor value 'v_patch_nums' of 4 scales; got []. "
        "The weights alone do not determine it: pass it in config."
    )
    assert message("var", case[0], {**CONFIG, "v_patch_nums": [1, 2]}) == (
        "from_published('var'): expected v_patch_nums of 4 scales, as the tensors have them; got "
        "[1, 2]. Pass those of this checkpoint."
    )


def test_other_files_are_named(case):
    check_strictness("var", case[0], CONFIG, key="encoder.down.1.attn.0.proj_out.bias")
    assert message("var", case[0], {**CONFIG, "z_channels": 32}).startswith(
        "from_published('var'): expected z_channels of 16, as the tensors have it; got 32"
    )


def test_normalised_search_returns_codes_at_their_length(case):
    from tokenizers_vq.published import from_published

    tok = from_published("var", case[0], {**CONFIG, "using_znorm": True})
    assert type(tok.quantizer.inner[0]).__name__ == "FactorizedVQ"


def test_a_network_with_q_k_and_v_apart_is_not_var(case):
    state = {key: value for key, value in case[0].items() if "qkv" not in key}
    state["encoder.mid.attn_1.q.weight"] = torch.zeros(1)
    assert message("var", state) == (
        "from_published('var'): expected a checkpoint of this family; got one with q, k and v "
        "apart (families taming and ibq)."
    )
