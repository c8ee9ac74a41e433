import pytest
from reference.sounds import assert_ranks, measured, noisy, voice

from tokenizers_vq.losses.spectral import dac_stft_distance


def test_equals_the_training_loss_which_has_its_own_parity_tests():
    x, y = voice(0.5), noisy(voice(0.5), 15)
    wanted = float(dac_stft_distance()(x[None], y[None]))
    assert measured("stft_distance", x, y)["stft_distance"].value == pytest.approx(wanted, rel=1e-5)


def test_golden_value_of_half_the_level():
    # |log10 a^2 - log10 (a/2)^2| = 2 log10 2 wherever both are above the floor
    x = voice(0.5)
    value = measured("stft_distance", x, x / 2)["stft_distance"].value
    assert value > 4 * 0.30103


def test_ranks_damage():
    assert_ranks("stft_distance", voice())


def test_identity_is_zero():
    assert measured("stft_distance", voice(0.5), voice(0.5))["stft_distance"].value == 0
