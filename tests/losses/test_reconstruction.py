"""Reconstruction losses against values worked out by hand."""

import pytest
import torch

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.losses.reconstruction import l1, l2, mix, smooth_l1

X = torch.tensor([[[[0.0, 1.0, -1.0, 0.5]]]])
Y = torch.tensor([[[[1.0, 1.0, 1.0, 0.0]]]])  # differences 1, 0, 2, -0.5


def test_l1_is_the_mean_absolute_difference():
    assert l1(X, Y).item() == pytest.approx(3.5 / 4)


def test_l2_is_the_mean_squared_difference():
    assert l2(X, Y).item() == pytest.approx(5.25 / 4)


def test_mix_weighs_both():
    assert mix(X, Y, 0.2).item() == pytest.approx(0.2 * 3.5 / 4 + 0.8 * 5.25 / 4)


def test_smooth_l1_is_square_below_one_and_straight_above():
    # 1 - 0.5, 0, 2 - 0.5, 0.5^2 / 2
    assert smooth_l1(X, Y).item() == pytest.approx((0.5 + 0 + 1.5 + 0.125) / 4)


def test_half_precision_is_summed_in_float32():
    x = torch.zeros(1, 1, 300, 300, dtype=torch.bfloat16)
    loss = l1(x, x + 1)
    assert loss.dtype == torch.float32
    assert loss.item() == 1.0


def test_another_shape_is_refused():
    with pytest.raises(ShapeError) as error:
        l2(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 8))
    assert str(error.value) == (
        "reconstruction: expected shape (1, 3, 4, 4); got (1, 3, 4, 8). "
        "Crop the reconstruction to the signal."
    )
