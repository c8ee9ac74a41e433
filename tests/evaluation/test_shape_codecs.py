import numpy as np
import pytest

from tokenizers_vq import shapes
from tokenizers_vq.backbones.field import lattice
from tokenizers_vq.evaluation.shape_codecs import (
    decode_points,
    draco,
    ellipsoid,
    ellipsoid_distances,
    encode_points,
)
from tokenizers_vq.functional.solids import Superquadric
from tokenizers_vq.functional.triangles import sample_surface

EGG = Superquadric((0.8, 0.5, 0.4))


@pytest.fixture(scope="module")
def mesh():
    return shapes.marched(EGG.distance(lattice(40).T.numpy().astype(float)).reshape(40, 40, 40))


def test_coded_points_come_back_to_half_a_cell():
    points = EGG.surface(500, np.random.default_rng(0))
    data = encode_points(points, 100)
    assert 90 < len(data) <= 100
    back = decode_points(data)
    assert len(back) > 40
    near = np.abs(points[:, None] - back).max(-1).min(0)
    assert near.max() <= 1 / 64 + 1e-9
    everything = decode_points(encode_points(points, 10**6))
    assert len(everything) == len(np.unique(np.floor((points + 1) * 32), axis=0))
    assert len(decode_points(encode_points(points, 3))) == 0


def test_the_ellipsoid_of_a_ball_is_the_ball():
    points = Superquadric((0.5, 0.5, 0.5)).surface(20_000, np.random.default_rng(0)) + 0.1
    centre, axes, size = ellipsoid(points)
    assert centre == pytest.approx([0.1] * 3, abs=0.01)
    assert np.linalg.norm(axes, axis=0) == pytest.approx([0.5] * 3, abs=0.01)
    assert size == 18
    places = np.array([[0.1, 0.1, 0.1], [0.1, 0.6, 0.1], [1.1, 0.1, 0.1]])
    assert ellipsoid_distances(centre, axes, places) == pytest.approx([-1, 0, 1], abs=0.05)


def test_draco_files_fit_and_resemble_the_mesh(mesh):
    found = list(draco(mesh, 256))
    assert found
    for made, size in found:
        assert 150 < size <= 256
        points, _, _ = sample_surface(made, 500, np.random.default_rng(0))
        assert np.abs(EGG.distance(points)).mean() < 0.06
    assert list(draco(mesh, 20)) == []
