import pytest
import torch
from reference.published_checks import check_strictness, compare, message, picture
from reference.published_vqgan import Net, Shape, by_product, run_vq

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published import from_published

SHAPE = Shape(blocks=2, attended=(1,), attended_up=(1,))
NETWORK = {"z_channels": 16, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 2, "resolution": 32}
CONFIG = {"ddconfig": NETWORK, "n_embed": 24, "embed_dim": 8}


@pytest.fixture(scope="module")
def case():
    net, x = Net(), picture(2, 16, 8)
    made = run_vq(net, x, SHAPE, 24, by_product)
    return net.state, x, made


@pytest.mark.parametrize("config", [CONFIG, None, {"model": {"init_args": CONFIG}}])
def test_it_is_the_reference(case, config):
    state, x, made = case
    assert type(compare("ibq", state, config, x, made).quantizer).__name__ == "IBQ"


def test_averages_are_the_default(case):
    state, x, made = case
    raw = {key: value + 1 for key, value in state.items()}
    averages = {f"model_ema.{key.replace('.', '')}": value for key, value in state.items()}
    training = {"loss.discriminator.main.0.weight": x, "model_ema.decay": x[0, 0, 0, 0]}
    file = {"state_dict": {**raw, **averages, **training}, "epoch": 3}
    compare("ibq", file, CONFIG, x, made)
    other = from_published("ibq", file, CONFIG, weights="raw").quantizer.codebook
    assert torch.equal(other.detach(), raw["quantize.embedding.weight"])


def test_other_files_are_named(case):
    check_strictness("ibq", case[0], CONFIG, key="decoder.up.0.block.1.norm2.weight")
    assert message("ibq", case[0], {**CONFIG, "cosine_similarity": True}, ConfigError) == (
        "from_published('ibq'): expected codes chosen by inner product, as in all published "
        "files; got cosine_similarity True. Leave it out."
    )
    assert message("ibq", case[0], {"n_embd": 3}, ConfigError).startswith(
        "from_published('ibq'): expected constructor values of ddconfig, n_embed, "
    )
