"""MRD: published size, gradients, the shortest sound."""

import pytest
import torch

from tokenizers_vq.discriminators.mrd import MRD
from tokenizers_vq.errors import ShapeError


def parameters(**options):
    """Return the number of parameters without drawing them."""
    with torch.device("meta"):
        return sum(p.numel() for p in MRD(**options).parameters())


def test_it_has_the_published_number_of_parameters():
    assert parameters() == 600_198


def test_the_shortest_sound_has_logits_and_gradients():
    critic = MRD((64, 128), width=2)
    x = torch.randn(2, 1, 65, requires_grad=True)
    logits = critic(x)
    assert logits.shape[:2] == (2, 1)
    logits.mean().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    with pytest.raises(ShapeError) as error:
        critic(torch.zeros(1, 1, 64))
    assert str(error.value) == ("MRD: expected at least 65 samples; got 64. Use longer crops.")
