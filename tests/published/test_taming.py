import pytest
from reference.published_checks import check_strictness, compare, message, picture
from reference.published_vqgan import Net, Shape, run_gumbel, run_vq

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published import from_published

SHAPE = Shape(mult=(1, 2, 2), attended=(1,), attended_up=(1, 2))
CONFIG = {
    "ddconfig": {
        "double_z": False, "z_channels": 16, "resolution": 32, "in_channels": 3, "out_ch": 3,
        "ch": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [16],
        "dropout": 0.0,
    },
    "n_embed": 24,
    "embed_dim": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def case():
    net, x = Net(), picture(2, 16, 24)
    made = run_vq(net, x, SHAPE, 24)
    return net.state, x, made


@pytest.mark.parametrize("config", [CONFIG, None, {"model": {"params": CONFIG}}])
def test_it_is_the_reference(case, config):
    state, x, made = case
    tok = compare("taming", state, config, x, made)
    assert tok.stride == (4, 4)
    assert tok.name == "taming.published"
    assert tok.quantizer.codebook_sizes == (24,)


def test_gumbel_scores_choose_the_codes():
    net, x = Net(seed=1), picture(2, 16, 16)
    made = run_gumbel(net, x, SHAPE, 24)
    config = {**CONFIG, "kl_weight": 1e-8, "temperature_scheduler_config": {"target": "..."}}
    tok = compare("taming", net.state, config, x, made)
    assert type(tok.quantizer).__name__ == "Gumbel"


def test_training_goes_on_with_the_published_losses(case):
    quantizer = from_published("taming", case[0]).quantizer
    assert (quantizer.commitment_weight, quantizer.codebook_weight) == (1.0, 0.25)
    quantizer = from_published("taming", case[0], {"legacy": False, "beta": 0.5}).quantizer
    assert (quantizer.commitment_weight, quantizer.codebook_weight) == (0.5, 1.0)


def test_other_files_are_named(case):
    state, _, _ = case
    check_strictness("taming", state, CONFIG, key="encoder.down.1.block.0.conv1.bias")
    llamagen = {key.replace(".down.", ".conv_blocks."): value for key, value in state.items()}
    assert message("taming", llamagen).startswith(
        "from_published('taming'): expected only keys of this family; got "
    )
    assert message("taming", {"encoder.conv_in.weight": state["encoder.conv_in.weight"]}) == (
        "from_published('taming'): expected a key 'quantizer.codebook'; got 1 others. "
        "Is it a checkpoint of another family?"
    )


def test_contradictions_are_named(case):
    assert message("taming", case[0], {**CONFIG, "n_embed": 16}) == (
        "from_published('taming'): expected n_embed of 24, as the tensors have it; got 16 in "
        "config. Pass the constructor values of this checkpoint."
    )
    wrong = {**CONFIG, "ddconfig": {**CONFIG["ddconfig"], "ch_mult": [1, 2, 4]}}
    assert message("taming", case[0], wrong) == (
        "from_published('taming') ddconfig: expected ch_mult of [1, 2, 2], as the tensors have it; "
        "got [1, 2, 4] in config. Pass the constructor values of this checkpoint."
    )
    assert message("taming", case[0], {"remap": "used.npy"}, ConfigError) == (
        "from_published('taming'): expected indices of the whole codebook; got remap 'used.npy'. "
        "Import without it and select the indices yourself."
    )
