import numpy as np
import pytest
import torch
from reference.sounds import assert_ranks, measured, noisy, voice

from tokenizers_vq.metrics.si_sdr import si_sdr


def test_golden_value_by_hand():
    # target (1, -1) and an orthogonal error (.1, .1) after the mean is gone: only scale is left
    real = torch.tensor([1.0, -1.0, 1.0, -1.0])
    fake = torch.tensor([2.0, -2.0, 2.0, -2.0]) + torch.tensor([0.2, 0.2, -0.2, -0.2])
    # a = 2, |target|^2 = 16, |error|^2 = 4 x .04
    assert float(si_sdr(real, fake)) == pytest.approx(10 * torch.log10(torch.tensor(100.0)))


def test_scale_and_offset_do_not_count():
    x = voice(0.5)
    assert float(si_sdr(x, 0.3 * x + 0.1)) == 99


def test_equals_the_residual_of_a_least_squares_fit():
    x, y = voice(0.5).double().numpy()[0], noisy(voice(0.5), 12).double().numpy()[0]
    # a regression of y on x and a constant is the projection after both means are taken
    fit, residual, *_ = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y)
    power = np.sum((fit[0] * (x - x.mean())) ** 2)
    wanted = 10 * np.log10(power / residual[0])
    assert float(si_sdr(torch.from_numpy(x), torch.from_numpy(y))) == pytest.approx(wanted)


def test_ranks_damage():
    assert_ranks("si_sdr", voice())


def test_silence_is_counted():
    x = voice(0.5)
    assert measured("si_sdr", x, 0 * x)["si_sdr"].detail["unscored"] == {"silent reconstruction": 1}
    assert measured("si_sdr", 0 * x, x)["si_sdr"].detail["unscored"] == {"silent original": 1}
