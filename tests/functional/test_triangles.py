"""Meshes against a box, about which everything is known."""

import numpy as np
import pytest

from tokenizers_vq.errors import DataError
from tokenizers_vq.functional.solids import Box
from tokenizers_vq.functional.triangles import (
    Mesh,
    distance_to,
    sample_surface,
    triangle_distance,
    winding_number,
)

CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
FACES = np.array([
    [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
    [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
])  # fmt: skip


def box(*half):
    return Mesh(CORNERS * half, FACES)


def test_a_box_is_closed_and_has_its_volume():
    mesh = box(1, 2, 3)
    assert mesh.is_closed
    assert mesh.volume == pytest.approx(48)
    assert Mesh(mesh.vertices, mesh.faces[:, ::-1]).volume == pytest.approx(-48)
    assert not Mesh(mesh.vertices, mesh.faces[1:]).is_closed
    turned = mesh.faces.copy()
    turned[0] = turned[0, ::-1]
    assert not Mesh(mesh.vertices, turned).is_closed


def test_the_winding_number_is_1_inside_and_0_outside():
    places = np.array([[0, 0, 0], [0.9, -0.9, 0.9], [1.1, 0, 0], [5, 5, 5]], dtype=float)
    assert winding_number(box(1, 1, 1), places) == pytest.approx([1, 1, 0, 0], abs=1e-5)
    assert len(winding_number(box(1, 1, 1), np.zeros((0, 3)))) == 0


def test_samples_are_even_and_have_normals():
    points, normals, face = sample_surface(box(0.5, 0.25, 1), 20_000, np.random.default_rng(0))
    assert np.abs(Box((0.5, 0.25, 1)).distance(points)).max() < 1e-12
    ends = np.abs(normals[:, 2]) > 0.5
    assert ends.mean() == pytest.approx(1 / 7, abs=0.01)
    assert (normals[ends, 2] == np.sign(points[ends, 2])).all()  # outwards
    assert set(face[ends]) == {0, 1, 2, 3} or set(face[ends]) == {8, 9, 10, 11}


def test_distances_of_a_triangle_by_hand():
    corner = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0]], dtype=float)
    places = np.array([[0.5, 0.5, 3], [-3, -4, 0], [1, -1, 0], [2, 2, 1]], dtype=float)
    wanted = [3, 5, 1, np.sqrt(2 + 1)]
    assert triangle_distance(np.stack([corner] * 4), places) == pytest.approx(wanted)
    flat = np.stack([corner[[0, 1, 1]]])
    assert triangle_distance(flat, np.array([[1.0, 2, 0]])) == pytest.approx([2])


def test_distances_to_a_mesh_are_those_of_the_box():
    generator = np.random.default_rng(0)
    places = generator.uniform(-1, 1, (300, 3))
    found = distance_to(box(0.5, 0.25, 0.75), places, generator)
    assert found == pytest.approx(np.abs(Box((0.5, 0.25, 0.75)).distance(places)), abs=2e-3)


def test_a_mesh_without_area_is_refused():
    with pytest.raises(DataError) as error:
        sample_surface(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), 5, np.random.default_rng(0))
    assert str(error.value) == (
        "sample_surface: expected a mesh with some area; got none. Leave it out."
    )
