"""Losses of distances against values worked out by hand."""

import math

import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.losses.field import ClippedDistance, SoftOccupancy


def samples(*distances):
    return torch.cat([torch.rand(1, 3, len(distances)), torch.tensor(distances)[None, None]], 1)


def test_near_the_surface_the_error_counts_and_far_from_it_the_side():
    x = samples(0.05, -0.05, 0.3, -0.3, 0.3)
    x_hat = samples(0.15, -0.05, 0.2, -0.9, 0.04)
    # 0.1, 0, 0 (beyond 0.1 on the right side), 0, 0.06
    assert ClippedDistance(0.1)(x, x_hat).item() == pytest.approx(0.16 / 5 / 0.1)


def test_a_distance_far_on_the_wrong_side_has_a_gradient():
    wrong = samples(-0.8).requires_grad_()
    ClippedDistance(0.1)(samples(0.5), wrong).backward()
    assert wrong.grad[0, 3, 0] == pytest.approx(-10)
    assert not wrong.grad[0, :3].any()


def test_soft_occupancy_is_a_divergence():
    x = samples(0.02, -0.1, 0.0)
    assert SoftOccupancy(0.02)(x, x).item() == pytest.approx(0, abs=1e-7)
    # p = 1/2 on the surface, q = 1 / (1 + e): p log(p/q) + (1-p) log((1-p)/(1-q))
    q = 1 / (1 + math.e)
    wanted = -0.5 * math.log(2 * q) - 0.5 * math.log(2 * (1 - q))
    got = SoftOccupancy(0.02)(samples(0.0), samples(0.02)).item()
    assert got == pytest.approx(wanted, rel=1e-5)


def test_limits_are_above_0():
    with pytest.raises(ConfigError) as error:
        ClippedDistance(0)
    assert str(error.value) == ("ClippedDistance: expected a limit above 0; got 0. Correct it.")
    with pytest.raises(ConfigError, match="expected a width above 0"):
        SoftOccupancy(-1)
