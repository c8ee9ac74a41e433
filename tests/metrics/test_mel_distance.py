import pytest
import torch
from reference.sounds import assert_ranks, measured, noisy, voice

from tokenizers_vq.losses.spectral import dac_mel, dac_mel_distance
from tokenizers_vq.metrics.mel_distance import log_difference, magnitudes


def test_equals_the_training_losses_which_have_their_own_parity_tests():
    x, y = voice(0.5), noisy(voice(0.5), 15)
    scores = measured("mel_distance", x, y)
    reported = float(dac_mel_distance(16000)(x[None], y[None]))
    assert scores["mel_distance"].value == pytest.approx(reported, rel=1e-5)
    trained = float(dac_mel(16000)(x[None], y[None]))
    assert scores["mel_distance_7"].value == pytest.approx(trained, rel=1e-5)


def test_golden_logarithm():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.1, 1e-7])
    assert float(log_difference(a, b)) == pytest.approx(0.5)  # one decade, and both at the floor


def test_golden_magnitude_of_a_constant():
    # a Hann window of 8 samples sums to 4; bin 1 gets half of that with a minus sign
    frames = magnitudes(torch.ones(32), 8)
    assert frames.shape == (17, 5)
    assert frames[8].tolist() == pytest.approx([4, 2, 0, 0, 0], abs=1e-6)


def test_ranks_damage():
    assert_ranks("mel_distance", voice())


def test_a_clip_shorter_than_a_window_is_counted():
    x = voice(0.06)
    score = measured("mel_distance", x, x)["mel_distance"]
    assert score.reason == "no clip could be scored (1 x shorter than 1,025 samples)"
