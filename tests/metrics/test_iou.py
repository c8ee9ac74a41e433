import numpy as np
import pytest

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.iou import iou

TICKS = np.linspace(-1, 1, 33)
PLACES = np.stack(np.meshgrid(TICKS, TICKS, TICKS, indexing="ij"), axis=-1).reshape(-1, 3)


def test_golden_value_of_two_balls():
    real = np.linalg.norm(PLACES, axis=1) < 0.8
    fake = np.linalg.norm(PLACES - (0.1, 0, 0), axis=1) < 0.8
    assert iou(real, fake) == pytest.approx(0.8311905, rel=1e-6)


def test_a_box_shifted_by_half_its_side_has_a_third():
    middles = (np.arange(24) + 0.5) / 12 - 1
    places = np.stack(np.meshgrid(middles, middles, middles), axis=-1).reshape(-1, 3)
    real = (np.abs(places - (-0.25, 0, 0)) < 0.5).all(1)
    fake = (np.abs(places - (0.25, 0, 0)) < 0.5).all(1)
    assert iou(real, fake) == pytest.approx(1 / 3)


def test_two_empty_shapes_are_the_same():
    assert iou(np.zeros(5, dtype=bool), np.zeros(5, dtype=bool)) == 1


def test_numbers_are_refused():
    with pytest.raises(ShapeError, match="expected two arrays of bool of one shape"):
        iou(np.zeros(5, dtype=bool), np.zeros(5))
