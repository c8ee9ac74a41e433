"""Spectrogram: published size, gradients, the shortest sound."""

import pytest
import torch

from tokenizers_vq.discriminators.spectrogram import Spectrogram
from tokenizers_vq.errors import ShapeError


def parameters(**options):
    """Return the number of parameters without drawing them."""
    with torch.device("meta"):
        return sum(p.numel() for p in Spectrogram(**options).parameters())


def test_it_has_the_published_number_of_parameters():
    assert parameters() == 18_097_936


def test_the_shortest_sound_has_logits_and_gradients():
    critic = Spectrogram((64, 128), width=2)
    x = torch.randn(2, 1, 65, requires_grad=True)
    logits = critic(x)
    assert logits.shape[:2] == (2, 1)
    logits.mean().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    with pytest.raises(ShapeError) as error:
        critic(torch.zeros(1, 1, 64))
    assert str(error.value) == (
        "Spectrogram: expected at least 65 samples; got 64. Use longer crops."
    )


def test_it_sees_magnitudes_in_a_range():
    judge = Spectrogram((64,), width=2).judges[0]
    time = torch.arange(640) / 8
    x = torch.stack([0 * time, (6.2832 * time).sin(), 9 * (6.2832 * time).sin()])[:, None]
    silent, tone, loud = judge.view(x)[:, 0, 8, 5].tolist()
    assert silent == pytest.approx(1e-7**0.5)
    assert tone == pytest.approx(16, rel=1e-3)  # half of a window's sum, which is 32
    assert loud == pytest.approx(1e3**0.5)
