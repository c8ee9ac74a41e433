import numpy as np
import pytest
from reference.fibonacci import SPHERE

from tokenizers_vq.metrics.normal_consistency import normal_consistency


def test_a_sphere_and_a_larger_one_agree():
    assert normal_consistency(SPHERE, 1.3 * SPHERE, SPHERE, SPHERE) == pytest.approx(1)


def test_the_side_does_not_count():
    assert normal_consistency(SPHERE, SPHERE, SPHERE, -SPHERE) == pytest.approx(1)


def test_by_hand():
    points = np.array([[0, 0, 0], [1, 0, 0]], dtype=float)
    real = np.array([[0, 0, 1], [0, 0, 1]], dtype=float)
    fake = np.array([[0, 0.6, 0.8], [1, 0, 0]])
    # 0.8 and 0 one way; one point of the other set alone: 0.8 back
    assert normal_consistency(points, points, real, fake) == pytest.approx(0.4)
    assert normal_consistency(points, points[:1], real, fake[:1]) == pytest.approx(0.8)
