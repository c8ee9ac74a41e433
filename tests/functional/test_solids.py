"""Solids against distances worked out by hand, and against their own surfaces."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tokenizers_vq.functional import solids
from tokenizers_vq.functional.solids import Box, Capsule, Carved, Cylinder, Moved, Sphere, Torus

TURN = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))  # a quarter around z
BALLS = solids.Union([Sphere(0.5), Moved(Sphere(0.4), (0.5, 0, 0))])
CUP = Carved(Cylinder(0.6, 0.5), Moved(Cylinder(0.6, 0.4), (0, 0, 0.2)))
EXACT = [
    Sphere(0.7), Box((0.5, 0.3, 0.6)), Torus(0.5, 0.2), Capsule(0.4, 0.3), Cylinder(0.5, 0.4),
    Moved(Box((0.3, 0.2, 0.1)), (0.1, 0.2, 0.3), TURN, 1.5),
]  # fmt: skip
ALL = [*EXACT, solids.Superquadric((0.6, 0.4, 0.5), 0.4, 0.7), BALLS, CUP]


def at(solid, *point):
    return float(solid.distance(np.array([point], dtype=float))[0])


def test_distances_by_hand():
    assert at(Sphere(0.5), 0, 3, 4) == pytest.approx(4.5)
    assert at(Box((1, 2, 3)), 2, 4, 5) == pytest.approx(3)  # 1, 2, 2 beyond a corner
    assert at(Box((1, 2, 3)), 0.5, 0, 0) == pytest.approx(-0.5)
    assert at(Torus(2, 0.5), 0, 0, 0) == pytest.approx(1.5)
    assert at(Torus(2, 0.5), 2, 0, 0) == pytest.approx(-0.5)
    assert at(Capsule(1, 0.5), 0, 3, 5) == pytest.approx(4.5)  # 3, 4 from the upper end
    assert at(Cylinder(1, 2), 5, 0, 5) == pytest.approx(5)  # 3, 4 from the rim
    assert at(Cylinder(1, 2), 0, 0, 0.2) == pytest.approx(-0.8)
    assert at(solids.Superquadric((2, 1, 1)), 2.1, 0, 0) == pytest.approx(0.1, rel=1e-3)


def test_moving_scales_rotates_then_shifts():
    moved = Moved(Box((1, 0.1, 0.1)), (0, 0, 1), TURN, 2.0)
    assert at(moved, 0, 2.5, 1) == pytest.approx(0.5)  # the long side is along y now
    assert at(moved, 2.2, 0, 1) == pytest.approx(2.0)


def test_sets_of_solids():
    assert at(BALLS, 0.95, 0, 0) == pytest.approx(0.05)
    assert at(CUP, 0, 0, 0) == pytest.approx(0.4)  # in the hollow: 0.4 to the wall
    assert at(CUP, 0.45, 0, 0) == pytest.approx(-0.05)


@pytest.mark.parametrize("solid", ALL, ids=lambda solid: type(solid).__name__)
def test_the_surface_has_distance_0(solid):
    points = solid.surface(500, np.random.default_rng(0))
    assert points.shape == (500, 3)
    assert np.abs(solid.distance(points)).max() < 1e-6


@pytest.mark.parametrize("solid", EXACT, ids=lambda solid: type(solid).__name__)
def test_the_distance_is_that_to_the_nearest_point_of_the_surface(solid):
    generator = np.random.default_rng(0)
    places = generator.uniform(-1, 1, (200, 3))
    found, _ = cKDTree(solid.surface(20_000, generator)).query(places)
    distance = np.abs(solid.distance(places))
    assert (found >= distance - 1e-9).all()  # no point is nearer than it says
    assert np.abs(found - distance).max() < 0.05


def test_surfaces_are_even():
    generator = np.random.default_rng(0)
    box = Box((0.5, 0.25, 1.0)).surface(20_000, generator)
    ends = (np.abs(np.abs(box[:, 2]) - 1) < 1e-12).mean()
    assert ends == pytest.approx(2 * 0.5 / (8 * 0.875), abs=0.01)  # 2 of 1 x 0.5, of 7 in all
    ring = Torus(0.5, 0.2).surface(20_000, generator)
    outer = (np.hypot(ring[:, 0], ring[:, 1]) > 0.5).mean()
    assert outer == pytest.approx(0.5 + 0.2 / (np.pi * 0.5), abs=0.01)
    # a ball drawn by weights: heights are even, by Archimedes
    heights = solids.Superquadric((1, 1, 1)).surface(20_000, generator)[:, 2]
    assert np.histogram(heights, 4, (-1, 1))[0] / 20_000 == pytest.approx([0.25] * 4, abs=0.02)


def test_points_inside_of_another_part_are_left_out():
    points = BALLS.surface(4000, np.random.default_rng(0))
    large = np.abs(np.linalg.norm(points, axis=1) - 0.5) < 1e-9
    # the balls meet at x = (0.25 + 0.25 - 0.16) / (2 * 0.5) = 0.34; a cap has area 2 pi r h
    areas = np.array([2 * np.pi * 0.5 * (1 - 0.16), 2 * np.pi * 0.4 * (0.4 + 0.5 - 0.34)])
    assert large.mean() == pytest.approx(areas[0] / areas.sum(), abs=0.03)


def test_a_random_rotation_is_one():
    matrix = np.array(solids.random_rotation(np.random.default_rng(3)))
    assert matrix @ matrix.T == pytest.approx(np.eye(3))
    assert np.linalg.det(matrix) == pytest.approx(1)
