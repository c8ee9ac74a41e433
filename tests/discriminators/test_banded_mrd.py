"""Banded MRD: published size, gradients, the shortest sound."""

import pytest
import torch

from tokenizers_vq.discriminators.banded_mrd import BandedMRD
from tokenizers_vq.errors import ShapeError


def parameters(**options):
    """Return the number of parameters without drawing them."""
    with torch.device("meta"):
        return sum(p.numel() for p in BandedMRD(**options).parameters())


def test_it_has_the_published_number_of_parameters():
    assert parameters() == 1_413_990


def test_the_shortest_sound_has_logits_and_gradients():
    critic = BandedMRD((64, 128), width=2)
    x = torch.randn(2, 1, 128, requires_grad=True)
    logits = critic(x)
    assert logits.shape[:2] == (2, 1)
    logits.mean().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    with pytest.raises(ShapeError) as error:
        critic(torch.zeros(1, 1, 127))
    assert str(error.value) == (
        "BandedMRD: expected at least 128 samples; got 127. Use longer crops."
    )


def test_bands_are_side_by_side_again():
    judge = BandedMRD((128,), width=2).judges[0]
    assert judge.bands == [(0, 6), (6, 16), (16, 32), (32, 48), (48, 65)]
    logits, features = judge(torch.randn(1, 1, 1000))
    assert logits.shape == (1, 1, 32, 1 + 2 + 2 + 2 + 3)  # ceil(1000 / 32) frames
    assert len(features) == 25
