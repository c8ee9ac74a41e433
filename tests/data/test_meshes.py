import numpy as np
import pytest
import torch
import trimesh

from tokenizers_vq.data.meshes import MeshFolder, fitted, mesh_samples, read_mesh
from tokenizers_vq.errors import DataError
from tokenizers_vq.functional.solids import Box


@pytest.fixture
def root(tmp_path):
    (tmp_path / "deep").mkdir()
    trimesh.creation.box((2, 4, 1)).export(tmp_path / "a.stl")  # corners stand there once per face
    trimesh.creation.icosphere(2).export(tmp_path / "b.ply")
    inwards = trimesh.creation.box((1, 1, 1))
    inwards.invert()
    inwards.export(tmp_path / "deep" / "c.obj")
    trimesh.Scene([trimesh.creation.box((1, 2, 3))]).export(tmp_path / "d.glb")
    hole = trimesh.creation.icosphere(1)
    hole.update_faces(np.arange(len(hole.faces)) > 0)
    hole.export(tmp_path / "open.off")
    (tmp_path / "broken.ply").write_bytes(b"ply\nformat nonsense")
    (tmp_path / "empty.obj").write_text("")
    (tmp_path / "notes.txt").write_text("not a mesh")
    return tmp_path


def test_closed_meshes_of_any_format_are_used_and_others_counted(root):
    data = MeshFolder(root, surface=30, queries=20)
    assert data.ids == ["a.stl", "b.ply", "d.glb", "deep/c.obj"]
    assert set(data.skipped) == {"broken.ply", "empty.obj", "open.off"}
    assert data.skipped["open.off"] == "not watertight"
    for index in range(4):
        mesh = data.mesh(index)
        assert mesh.volume > 0
        assert np.abs(mesh.vertices).max() == pytest.approx(0.9)
    assert MeshFolder(root, max_faces=100).skipped["b.ply"] == "320 triangles, more than 100"
    assert MeshFolder(root, exclude=["b*"]).ids == ["a.stl", "d.glb", "deep/c.obj"]


def test_distances_are_those_of_a_box(root):
    mesh = fitted(read_mesh(root / "a.stl"))
    x = mesh_samples(mesh, 40, 200, np.random.default_rng(0)).double().numpy()
    assert not x[3, :40].any()
    assert Box((0.45, 0.9, 0.225)).distance(x[:3].T) == pytest.approx(x[3], abs=2e-3)


def test_items_for_training_turn_and_shrink_and_others_stay(root):
    still, moving = (MeshFolder(root, 300, 20, train=train, exclude=["b*"]) for train in (0, 1))
    assert torch.equal(still[0, 0], still[5, 0])
    assert still[0].shape == moving[0].shape == (4, 320)
    box = Box((0.45, 0.9, 0.225))
    sizes = []
    for epoch in range(4):
        x = moving[epoch, 0].double().numpy()
        assert not x[3, :300].any()
        reach = np.abs(x[:3, :300]).max(1)
        sizes.append(reach.max())
        order = np.argsort(np.argsort(reach))  # the sides of the box in their new order
        half = tuple(np.sort(box.half)[order] * reach.max() / 0.9)
        assert Box(half).distance(x[:3].T) == pytest.approx(x[3], abs=0.03)
    assert len(set(sizes)) == 4
    assert (np.array(sizes) > 0.6).all()


def test_a_folder_without_closed_meshes_is_refused(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(DataError) as error:
        MeshFolder(tmp_path)
    assert str(error.value) == (
        f"MeshFolder: expected at least one usable mesh in '{tmp_path}'; got 1 files, none of them "
        "usable (first: a.obj: not watertight)."
    )
