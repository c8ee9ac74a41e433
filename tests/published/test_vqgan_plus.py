import pytest
import torch
from reference.convnets import (
    assert_same,
    fill,
    maskgit_decode,
    maskgit_encode,
    maskgit_shapes,
    nearest,
)

from tokenizers_vq import from_published
from tokenizers_vq.errors import CheckpointError

CONFIG = {
    "model_class": "vqgan+",
    "quantizer_type": "lookup",
    "codebook_size": 24,
    "token_size": 8,
    "commitment_cost": 0.25,
    "entropy_loss_weight": 0.0,
    "entropy_loss_temperature": 0.01,
    "entropy_gamma": 1.0,
    "num_channels": 3,
    "hidden_channels": 32,
    "channel_mult": [1, 2, 2],
    "num_resolutions": 3,
    "num_res_blocks": 1,
    "sample_with_conv": True,
}


def state_of(**options):
    shapes = maskgit_shapes(32, (1, 2, 2), 1, 8, **{"strided": True} | options)
    state = fill({**shapes, "quantize.embedding.weight": (24, 8)})
    state["quantize.embedding.weight"] *= 3
    return state


@pytest.mark.parametrize(
    "options", [{}, {"backwards": True}, {"strided": False}], ids=["new", "legacy", "pooling"]
)
@pytest.mark.parametrize("config", [None, CONFIG, {"model": {"vq_model": CONFIG}}])
def test_latents_indices_and_pictures_are_those_of_the_formulas(options, config):
    if config and "strided" in options:
        config = {"sample_with_conv": False}
    state = state_of(**options)
    x = torch.rand(2, 3, 12, 20) * 2 - 1
    z = maskgit_encode(state, (x + 1) / 2)
    indices, gap = nearest(z, state["quantize.embedding.weight"])
    q = state["quantize.embedding.weight"][indices[..., 0]].movedim(-1, 1)
    tokenizer = from_published("vqgan_plus", state, config)
    sure = (gap > 1e-4)[..., None]
    assert_same(tokenizer, x, z, indices, sure, q, 2 * maskgit_decode(state, q) - 1)


def test_unit_latents_and_codes():
    state = state_of()
    tokenizer = from_published("vqgan_plus", state, {**CONFIG, "use_l2_normalisation": True})
    x = torch.rand(1, 3, 8, 8) * 2 - 1
    z = maskgit_encode(state, (x + 1) / 2)
    table = torch.nn.functional.normalize(state["quantize.embedding.weight"], dim=-1)
    indices, _ = nearest(torch.nn.functional.normalize(z, dim=1), table)
    assert torch.equal(tokenizer.encode(x).indices, indices)
    torch.testing.assert_close(tokenizer.quantizer.decode(indices), table[indices[..., 0]])


def test_wrong_files_and_values_are_named():
    for values, message in (
        ({"codebook_size": 4096}, "expected codebook_size of 24"),
        ({"quantizer_type": "lookup-free"}, "expected quantizer_type of lookup"),
        ({"num_res_blocks": 2}, "expected num_res_blocks of 1"),
        ({"sample_with_conv": False}, "expected sample_with_conv of True"),
    ):
        with pytest.raises(CheckpointError) as error:
            from_published("vqgan_plus", state_of(), {**CONFIG, **values})
        assert message in str(error.value)
    state = state_of()
    del state["quantize.embedding.weight"]
    with pytest.raises(CheckpointError) as error:
        from_published("vqgan_plus", state)
    assert str(error.value) == (
        "from_published('vqgan_plus'): expected a checkpoint of this family; got one without a "
        "codebook (family maskbit has none)."
    )
