"""A folder of meshes of any format that trimesh reads, as samples of signed distances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.data.files import FileFolder
from tokenizers_vq.data.points import SIGNAL, sampled
from tokenizers_vq.data.synthetic_shapes import REACH
from tokenizers_vq.data.transforms import draw_generator
from tokenizers_vq.errors import ConfigError, MissingExtraError
from tokenizers_vq.functional.triangles import (
    Floats,
    Mesh,
    distance_to,
    sample_surface,
    winding_number,
)

SUFFIXES = {".obj", ".off", ".ply", ".stl", ".glb", ".gltf", ".3mf", ".dae"}
BANK = 4  # items' worth of samples that are kept of a mesh


class MeshFolder(FileFolder):
    """Closed meshes below a folder; each is one shape.

    Every file is read once at construction. Files that cannot be read, have no triangles, have more
    than ``max_faces`` or are not watertight (every edge between two triangles that face the same
    way, and some volume) are left out, counted and named once: without an inside there is no signed
    distance. Meshes are centred and scaled so that the largest coordinate is 0.9; meshes that face
    inwards are turned.

    Distances are exact, signs those of the winding number. A mesh's samples are drawn when it is
    first used, four items' worth of them, and reused: with ``train`` each item draws from them, and
    shows the mesh in one of the 48 positions of a cube and at 0.75 to 1 of its size.

    Args:
        root: the folder; searched to any depth, names with a leading dot left out.
        surface: samples on the surface, which come first.
        queries: further samples, see ``points.sampled``.
        train: draw, turn and scale at random.
        split: ``"val"`` takes 1 file in 20 by a hash of its name, ``"train"`` the others.
        exclude: patterns of file names to leave out.
        max_faces: more take long: distances are found without a hierarchy.
        seed: of samples and positions.

    Shapes:
        item ``(4, surface + queries)`` float32: x, y, z, signed distance

    Raises:
        ConfigError: an unknown split, or ``surface`` below 1.
        DataError: the folder does not exist, or no mesh is left.
        MissingExtraError: trimesh is not installed.
    """

    noun = "mesh"
    suffixes = SUFFIXES

    def __init__(
        self,
        root: str | Path,
        surface: int = 2048,
        queries: int = 2048,
        train: bool = False,
        split: Literal["all", "train", "val"] = "all",
        exclude: Sequence[str] = (),
        max_faces: int = 50_000,
        seed: int = 0,
    ) -> None:
        if surface < 1:
            raise ConfigError(f"MeshFolder: expected surface of 1 or more; got {surface}.")
        self.surface, self.queries, self.max_faces = surface, queries, max_faces
        self._meshes: dict[str, Mesh] = {}
        self._banks: dict[str, Tensor] = {}
        super().__init__(root, SIGNAL, train, seed, split, exclude=exclude)

    def why_not(self, name: str) -> str | None:
        """Return why a file cannot be used, or None; its mesh is kept."""
        mesh = read_mesh(self.root / name, self.max_faces)
        if isinstance(mesh, str):
            return mesh
        self._meshes[name] = fitted(mesh)
        return None

    def mesh(self, index: int) -> Mesh:
        """Return mesh ``index``, inside [-0.9, 0.9] on all axes."""
        return self._meshes[self.ids[index]]

    def item(self, index: int, epoch: int) -> Tensor:
        """Return samples ``(4, N)`` of mesh ``index``."""
        bank, count = self._bank(index), BANK if self.train else 1
        if not self.train:
            return bank[:, : self.surface + self.queries]
        generator = draw_generator(self.seed, epoch, index)
        on = generator.permutation(count * self.surface)[: self.surface]
        off = count * self.surface + generator.permutation(count * self.queries)[: self.queries]
        chosen = bank[:, torch.from_numpy(np.concatenate([on, off]))]
        scale = float(generator.uniform(0.75, 1.0))
        axes = torch.from_numpy(generator.permutation(3))
        sides = torch.from_numpy(generator.choice([-1.0, 1.0], size=(3, 1)).astype(np.float32))
        return torch.cat([chosen[:3][axes] * sides, chosen[3:]]) * scale

    def _bank(self, index: int) -> Tensor:
        name = self.ids[index]
        if name not in self._banks:
            count = BANK if self.train else 1
            self._banks[name] = mesh_samples(
                self.mesh(index), count * self.surface, count * self.queries,
                draw_generator(self.seed, 0, index),
            )  # fmt: skip
        return self._banks[name]


def mesh_samples(mesh: Mesh, count: int, queries: int, generator: np.random.Generator) -> Tensor:
    """Return samples ``(4, count + queries)`` float32 of a closed mesh in [-1, 1].

    Args:
        mesh: closed, facing outwards.
        count: samples on the surface, which come first.
        queries: further samples, see ``points.sampled``.
        generator: draws the places.
    """
    points, _, _ = sample_surface(mesh, count + queries // 2, generator)

    def distance(places: Floats) -> Floats:
        away = distance_to(mesh, places, generator)
        return np.where(winding_number(mesh, places) > 0.5, -away, away)

    return sampled(points, count, queries, distance, generator)


def read_mesh(path: Path, max_faces: int | None = None) -> Mesh | str:
    """Return the closed mesh of a file, facing outwards, or why it cannot be used.

    Raises:
        MissingExtraError: trimesh is not installed.
    """
    trimesh = _trimesh()
    try:
        loaded = trimesh.load_mesh(path, process=True)
        if isinstance(loaded, trimesh.Scene):
            loaded = loaded.to_mesh()
    except Exception as error:  # readers of many formats fail in as many ways
        return f"not readable ({str(error).splitlines()[0] if str(error) else error!r:.60})"
    if not len(getattr(loaded, "faces", ())):
        return "no triangles"
    loaded.merge_vertices(merge_tex=True, merge_norm=True)
    if max_faces is not None and len(loaded.faces) > max_faces:
        return f"{len(loaded.faces)} triangles, more than {max_faces}"
    mesh = Mesh(
        np.asarray(loaded.vertices, dtype=np.float64), np.asarray(loaded.faces, dtype=np.int64)
    )
    if not np.isfinite(mesh.vertices).all():
        return "vertices that are not finite"
    side = float(np.ptp(mesh.vertices, axis=0).max())
    if not mesh.is_closed or abs(mesh.volume) < 1e-9 * side**3:
        return "not watertight"
    return mesh if mesh.volume > 0 else Mesh(mesh.vertices, mesh.faces[:, ::-1].copy())


def fitted(mesh: Mesh, reach: float = REACH) -> Mesh:
    """Return the mesh with its box centred and its largest coordinate ``reach``."""
    used = mesh.vertices[np.unique(mesh.faces)]
    low, high = used.min(0), used.max(0)
    scale = 2 * reach / max(float((high - low).max()), 1e-300)
    return Mesh((mesh.vertices - (low + high) / 2) * scale, mesh.faces)


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError as error:
        raise MissingExtraError(
            "MeshFolder: expected the package trimesh; got none. "
            'Run pip install "tokenizers_vq[mesh]".'
        ) from error
    return trimesh
