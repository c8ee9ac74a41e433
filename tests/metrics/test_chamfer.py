import numpy as np
import pytest
from reference.fibonacci import SPHERE, STRETCHED

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.chamfer import chamfer_l1, chamfer_l2


def test_by_hand():
    real = np.array([[0, 0, 0], [1, 0, 0]], dtype=float)
    fake = np.array([[0, 0, 2]], dtype=float)
    # there: 2 and sqrt 5; back: 2
    assert chamfer_l1(real, fake) == pytest.approx((2 + 5**0.5) / 2 + 2)
    assert chamfer_l2(real, fake) == pytest.approx((4 + 5) / 2 + 4)


def test_golden_values_of_two_spheres():
    assert chamfer_l1(SPHERE, STRETCHED) == pytest.approx(0.1216929, rel=1e-5)
    assert chamfer_l2(SPHERE, STRETCHED) == pytest.approx(0.008215181, rel=1e-5)


def test_two_concentric_spheres_differ_by_twice_the_gap():
    assert chamfer_l1(SPHERE, 0.75 * SPHERE) == pytest.approx(0.5)


def test_it_is_symmetric_and_0_for_the_same():
    assert chamfer_l1(SPHERE, SPHERE[::-1]) == 0
    assert chamfer_l2(SPHERE, STRETCHED) == pytest.approx(chamfer_l2(STRETCHED, SPHERE))


def test_an_empty_set_is_refused():
    with pytest.raises(ShapeError) as error:
        chamfer_l1(SPHERE, np.zeros((0, 3)))
    assert str(error.value) == (
        "nearest: expected points of shape (N, 3), N of 1 or more; got (0, 3). "
        "Sample both surfaces first."
    )
