import math

import pytest
import torch

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.functional.rotations import from_six
from tokenizers_vq.functional.superposition import superposed, superposition


def points(n=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64)


def test_a_moved_and_scaled_copy_comes_back():
    p = points()
    r = from_six(torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    t = torch.tensor([5.0, -2, 1], dtype=torch.float64)
    rotation, shift, scale = superposition(p, 1.7 * p @ r.mT + t, scale=True)
    torch.testing.assert_close(rotation, r)
    torch.testing.assert_close(shift, t)
    assert abs(float(scale) - 1.7) < 1e-12
    torch.testing.assert_close(superposed(p, p @ r.mT + t), p @ r.mT + t)


def test_two_points_by_hand():
    # a stick of length 2 on one of length 4: each end is 1 away, the scale is 2
    p = torch.tensor([[-1.0, 0, 0], [1, 0, 0]])
    q = torch.tensor([[0.0, 3, 0], [0, 7, 0]])
    torch.testing.assert_close(superposed(p, q), torch.tensor([[0.0, 4, 0], [0, 6, 0]]))
    torch.testing.assert_close(superposed(p, q, scale=True), q)


def test_a_mirror_image_is_not_laid_on_it():
    p = points()
    mirror = p * torch.tensor([-1.0, 1, 1])
    rotation, _, scale = superposition(p, mirror, scale=True)
    assert abs(float(torch.linalg.det(rotation)) - 1) < 1e-9
    assert 0 < float(scale) < 1
    assert (superposed(p, mirror) - mirror).norm() > 1


def test_no_other_rotation_is_better():
    p, q = points(seed=1), points(seed=2)
    best = (superposed(p, q) - q).square().sum()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        r = from_six(torch.randn(6, generator=generator, dtype=torch.float64))
        assert ((p - p.mean(0)) @ r.mT + q.mean(0) - q).square().sum() >= best


def test_points_without_weight_do_not_count():
    p, q = points(), points(seed=5)
    weights = torch.tensor([1.0] * 8 + [0.0] * 4)
    rotation, shift, _ = superposition(p, q, weights)
    again, moved, _ = superposition(p[:8], q[:8])
    torch.testing.assert_close(rotation, again)
    torch.testing.assert_close(shift, moved)
    assert superposed(p, q, 0 * weights).isfinite().all()


def test_a_line_of_points_gives_a_rotation():
    p = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0, 0])
    q = torch.arange(5.0)[:, None] * torch.tensor([0, math.sqrt(0.5), math.sqrt(0.5)])
    torch.testing.assert_close(superposed(p, q), q)


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError) as error:
        superposition(torch.zeros(4, 3), torch.zeros(5, 3))
    assert str(error.value) == (
        "superposition: expected two sets of points (..., N, 3); got (4, 3) and (5, 3). "
        "Pair them first."
    )
