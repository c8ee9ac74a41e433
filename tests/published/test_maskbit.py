import pytest
import torch
from reference.convnets import (
    assert_same,
    fill,
    maskgit_decode,
    maskgit_encode,
    maskgit_shapes,
    sign_codes,
    signs,
)

from tokenizers_vq import from_published
from tokenizers_vq.errors import CheckpointError

CONFIG = {
    "model_class": "vqgan+",
    "quantizer_type": "lookup-free",
    "codebook_size": 4096,  # as published, and wrong
    "token_size": 6,
    "entropy_loss_weight": 0.02,
    "hidden_channels": 32,
    "channel_mult": [1, 2, 2],
    "num_resolutions": 3,
    "num_res_blocks": 1,
    "sample_with_conv": True,
}


def state_of(backwards=False):
    state = fill(maskgit_shapes(32, (1, 2, 2), 1, 6, strided=True, backwards=backwards))
    state["quantize.bits_to_indices"] = 2 ** torch.arange(6, dtype=torch.int32)
    state["quantize.codebook"] = torch.zeros(64, 6)
    return state


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("config", [None, CONFIG])
def test_latents_indices_and_pictures_are_those_of_the_formulas(backwards, config):
    state = state_of(backwards)
    x = torch.rand(2, 3, 12, 20) * 2 - 1
    z = maskgit_encode(state, (x + 1) / 2)
    q = sign_codes(z)
    tokenizer = from_published("maskbit", state, config)
    sure = (z.abs().amin(1) > 1e-4)[..., None]
    assert_same(tokenizer, x, z, signs(z, 6), sure, q, 2 * maskgit_decode(state, q) - 1)
    assert tokenizer.quantizer.codebook_sizes == (64,)


def test_wrong_files_and_values_are_named():
    where = "from_published('maskbit'): expected a checkpoint of this family; got one "
    state = state_of() | {"quantize.embedding.weight": torch.zeros(4, 6)}
    with pytest.raises(CheckpointError) as error:
        from_published("maskbit", state)
    assert str(error.value) == where + "with a codebook (families vqgan_plus and maskgit_vqgan)."
    state = state_of() | {"quantize.bits_to_indices": 2 ** torch.arange(6).flip(0)}
    with pytest.raises(CheckpointError) as error:
        from_published("maskbit", state)
    assert str(error.value) == where + "whose first channel is not the lowest bit."
    with pytest.raises(CheckpointError) as error:
        from_published("maskbit", state_of(), {**CONFIG, "token_size": 12})
    assert "expected token_size of 6" in str(error.value)
