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
    "hidden_channels": 32,
    "channel_mult": [1, 2],
    "z_channels": 8,
    "num_embeddings": 24,
    "num_res_blocks": 1,
}
OTHER = {"model": {"vq_model": {"model_class": "maskgit", "token_size": 8, "codebook_size": 24}}}


def state_of(spelling="block", **options):
    shapes = maskgit_shapes(32, (1, 2), 1, 8, spelling=spelling, **{"strided": False} | options)
    state = fill({**shapes, "quantize.embedding.weight": (24, 8)})
    state["quantize.embedding.weight"] *= 3
    return state


@pytest.mark.parametrize(
    ("spelling", "backwards", "config"),
    [("block", True, CONFIG), ("block", True, None), ("res_blocks", True, OTHER)],
)
def test_latents_indices_and_pictures_are_those_of_the_formulas(spelling, backwards, config):
    state = state_of(spelling, backwards=backwards)
    x = torch.rand(2, 3, 12, 20) * 2 - 1
    z = maskgit_encode(state, (x + 1) / 2)
    indices, gap = nearest(z, state["quantize.embedding.weight"])
    q = state["quantize.embedding.weight"][indices[..., 0]].movedim(-1, 1)
    tokenizer = from_published("maskgit_vqgan", state, config)
    sure = (gap > 1e-4)[..., None]
    assert_same(tokenizer, x, z, indices, sure, q, 2 * maskgit_decode(state, q) - 1)


def test_wrong_files_and_values_are_named():
    with pytest.raises(CheckpointError) as error:
        from_published("maskgit_vqgan", state_of(backwards=True), {**CONFIG, "num_embeddings": 9})
    assert "expected num_embeddings of 24" in str(error.value)
    where = "from_published('maskgit_vqgan'): expected a checkpoint of this family; got one "
    with pytest.raises(CheckpointError) as error:
        from_published("maskgit_vqgan", state_of(strided=True))
    assert str(error.value) == where + "with strided convolutions (family vqgan_plus)."
    state = state_of()
    del state["quantize.embedding.weight"]
    with pytest.raises(CheckpointError) as error:
        from_published("maskgit_vqgan", state)
    assert str(error.value) == where + "without a codebook (family maskbit has none)."


def test_a_file_of_a_network_with_other_names_is_named():
    state = {"encoder.conv_in.weight": torch.zeros(32, 3, 3, 3)}
    state["quantize.embedding.weight"] = torch.zeros(8, 16)
    with pytest.raises(CheckpointError) as error:
        from_published("maskgit_vqgan", state)
    assert str(error.value) == (
        "from_published('maskgit_vqgan'): expected a key 'encoder.down.0.res_blocks.0.conv1.weight'"
        "; got 2 others. Is it a checkpoint of another family?"
    )
