"""Augmentations move, colour and cut as they say, and let gradients through."""

import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.losses.augment import (
    AUGMENTS,
    augment,
    check_augments,
    color,
    cutout,
    moved,
    translation,
)


def test_a_move_leaves_zeros_behind():
    x = torch.arange(1.0, 5.0).view(1, 1, 1, 4).repeat(2, 1, 1, 1)
    out = moved(x, torch.tensor([1, -2]), -1)
    assert out[:, 0, 0].tolist() == [[0, 1, 2, 3], [3, 4, 0, 0]]


def test_translation_is_at_most_an_eighth():
    torch.manual_seed(0)
    x = torch.zeros(64, 1, 16, 16)
    x[:, :, 8, 8] = 1
    places = translation(x).flatten(1).argmax(1)
    offsets = {(int(p) // 16 - 8, int(p) % 16 - 8) for p in places}
    assert {abs(n) for pair in offsets for n in pair} == {0, 1, 2}


def test_cutout_takes_a_square_of_half_the_side_or_less_at_the_border():
    torch.manual_seed(0)
    holes = 64 - cutout(torch.ones(32, 1, 8, 8)).sum((1, 2, 3))
    assert 4 <= holes.min() <= holes.max() == 16


def test_color_keeps_the_pattern():
    torch.manual_seed(0)
    x = torch.rand(4, 3, 8, 8)
    out = color(x)
    for item, changed in zip(x.mean(1).flatten(1), out.mean(1).flatten(1), strict=True):
        assert torch.corrcoef(torch.stack([item, changed]))[0, 1] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 4, 8, 8)])
def test_gradients_flow(shape):
    x = torch.rand(shape).requires_grad_()
    out = augment(x, tuple(AUGMENTS))
    assert out.shape == x.shape
    out.sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_word_in_place_of_a_list_is_refused():
    with pytest.raises(ConfigError) as error:
        check_augments("color")
    assert str(error.value) == (
        "augment: expected a list of color, translation, cutout; got 'color'. Write [color]."
    )
