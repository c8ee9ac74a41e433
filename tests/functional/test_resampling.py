import math

import pytest
import torch

from tokenizers_vq.functional.resampling import resample


def test_a_tone_keeps_its_frequency_and_its_level():
    t = torch.arange(16000) / 16000
    x = torch.sin(2 * math.pi * 440 * t)[None]
    y = resample(x, 16000, 24000)
    assert y.shape == (1, 24000)
    wanted = torch.sin(2 * math.pi * 440 * torch.arange(24000) / 24000)
    assert (y[0] - wanted)[500:-500].abs().max() < 2e-3


def test_what_the_lower_rate_cannot_carry_is_gone():
    x = torch.sin(2 * math.pi * 7000 * torch.arange(16000) / 16000)
    assert resample(x, 16000, 8000)[200:-200].abs().max() < 0.02


def test_the_same_rate_changes_nothing():
    x = torch.randn(2, 7)
    assert resample(x, 16000, 16000) is x


@pytest.mark.parametrize(("source", "target", "length"), [(24000, 16000, 67), (8000, 48000, 600)])
def test_lengths_are_rounded_up(source, target, length):
    assert resample(torch.zeros(100), source, target).shape == (length,)
