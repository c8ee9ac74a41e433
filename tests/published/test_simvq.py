import pytest
import torch
from reference.convnets import (
    assert_same,
    fill,
    magvit2_decode,
    magvit2_encode,
    magvit2_shapes,
    nearest,
)

from tokenizers_vq import from_published
from tokenizers_vq.errors import CheckpointError

SHAPES = {
    **magvit2_shapes(32, (1, 2), 1, 8, adaptive=False),
    "quantize.embedding.weight": (24, 8),
    "quantize.embedding_proj.weight": (8, 8),
    "quantize.embedding_proj.bias": (8,),
}
HEAD = {"n_e": 24, "e_dim": 8, "beta": 0.25, "legacy": False}


def table_of(state):
    table = state["quantize.embedding.weight"] @ state["quantize.embedding_proj.weight"].T
    return table + state["quantize.embedding_proj.bias"]


@pytest.mark.parametrize(
    "config",
    [None, HEAD, {"quantconfig": {"target": "SimVQ", "params": HEAD}, "learning_rate": 1e-4}],
)
def test_latents_indices_and_pictures_are_those_of_the_formulas(config):
    state = fill(SHAPES)
    state["quantize.embedding.weight"] = state["quantize.embedding.weight"] * 3
    x = torch.rand(2, 3, 12, 20) * 2 - 1
    z = magvit2_encode(state, x)
    table = table_of(state)
    indices, gap = nearest(z, table)
    q = table[indices[..., 0]].movedim(-1, 1)
    tokenizer = from_published("simvq", state, config)
    sure = (gap > 1e-4)[..., None]
    assert_same(tokenizer, x, z, indices, sure, q, magvit2_decode(state, q))


def test_indices_are_decoded_through_the_linear_map():
    state = fill(SHAPES)
    codes = from_published("simvq", state).quantizer.lookup(torch.arange(24)[None, :, None])
    torch.testing.assert_close(codes[0], table_of(state))


def test_wrong_files_and_values_are_named():
    state = fill(SHAPES)
    with pytest.raises(CheckpointError) as error:
        from_published("simvq", state, {"n_e": 8192})
    assert "expected n_e of 24" in str(error.value)
    del state["quantize.embedding_proj.weight"]
    with pytest.raises(CheckpointError) as error:
        from_published("simvq", state)
    assert str(error.value) == (
        "from_published('simvq'): expected a checkpoint of this family; got one without "
        "quantize.embedding_proj, the linear map in front of the codebook."
    )
