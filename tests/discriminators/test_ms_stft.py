"""MS-STFT: published size, gradients, the shortest sound."""

import pytest
import torch

from tokenizers_vq.discriminators.ms_stft import MSSTFT
from tokenizers_vq.errors import ShapeError


def parameters(**options):
    """Return the number of parameters without drawing them."""
    with torch.device("meta"):
        return sum(p.numel() for p in MSSTFT(**options).parameters())


def test_it_has_the_published_number_of_parameters():
    assert parameters() == 283_398


def test_the_shortest_sound_has_logits_and_gradients():
    critic = MSSTFT((64, 128), width=2)
    x = torch.randn(2, 1, 128, requires_grad=True)
    logits = critic(x)
    assert logits.shape[:2] == (2, 1)
    logits.mean().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    with pytest.raises(ShapeError) as error:
        critic(torch.zeros(1, 1, 127))
    assert str(error.value) == ("MSSTFT: expected at least 128 samples; got 127. Use longer crops.")


def test_the_scales_of_the_training_code():
    assert parameters(n_ffts=(1024, 2048, 512, 256, 128)) == 472_330
