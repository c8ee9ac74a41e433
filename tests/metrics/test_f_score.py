import numpy as np
import pytest
from reference.fibonacci import SPHERE, STRETCHED

from tokenizers_vq.metrics.f_score import f_score


def test_by_hand():
    real = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]], dtype=float)
    fake = np.array([[0, 0.1, 0], [9, 0, 0]], dtype=float)
    # precision 1 of 2, recall 1 of 4
    assert f_score(real, fake, 0.1) == pytest.approx(2 * 0.5 * 0.25 / 0.75)


def test_golden_values_of_two_spheres():
    assert f_score(SPHERE, STRETCHED, 0.02) == 0  # 0 of 0, and not NaN
    assert f_score(SPHERE, STRETCHED, 0.05) == pytest.approx(0.31, abs=5e-3)
    assert f_score(SPHERE, STRETCHED, 0.1) == pytest.approx(0.975, abs=5e-4)


def test_the_same_points_have_1():
    assert f_score(SPHERE, SPHERE, 0.0) == 1


def test_a_part_has_precision_but_no_recall():
    assert f_score(SPHERE, SPHERE[:500], 1e-9) == pytest.approx(2 * 0.5 / 1.5)
