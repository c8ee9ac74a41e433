"""Meshes to tokens and back: a mesh in, a file of at most so many bytes, a mesh or picture out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.backbones.field import FieldDecoder, lattice
from tokenizers_vq.bitstream import to_bytes
from tokenizers_vq.errors import ConfigError, MissingExtraError
from tokenizers_vq.files import write_atomically
from tokenizers_vq.functional.triangles import Mesh, sample_surface
from tokenizers_vq.quantizers.multi_scale import MultiScale
from tokenizers_vq.types import Codes

if TYPE_CHECKING:
    from tokenizers_vq.functional.triangles import Floats
    from tokenizers_vq.tokenizer import Tokenizer

BUDGETS = (64, 256, 512, 1024)
CHUNK = 1 << 16  # places at once
CORNER = 0.3  # brightness of what faces away from the light


@dataclass(frozen=True)
class Field:
    """A decoded shape: a signed distance that can be asked anywhere.

    Attributes:
        decoder: of the tokenizer.
        made: what ``FieldDecoder.field`` made of the latents of one shape.
    """

    decoder: FieldDecoder
    made: tuple[Tensor, ...]

    @torch.no_grad()
    def query(self, points: Floats) -> Floats:
        """Return the distances ``(N,)``, below 0 inside, of ``points (N, 3)`` in [-1, 1]."""
        places = torch.from_numpy(np.asarray(points, dtype=np.float32)).to(self.made[0].device)
        chunks = torch.split(places, CHUNK)
        parts = [self.decoder.distances(self.made, part.mT[None])[0, 0] for part in chunks]
        return torch.cat(parts).double().cpu().numpy()

    def mesh(self, side: int = 64) -> Mesh:
        """Return the surface, by marching cubes on ``side**3`` nodes; it may be empty.

        It is closed: around [-1, 1] a layer is taken as outside.
        """
        distances = self.query(lattice(side).T.numpy()).reshape(side, side, side)
        return marched(distances)


@torch.no_grad()
def field_of(tokenizer: Tokenizer, codes: Codes) -> Field:
    """Return the decoded field of ``codes`` of one shape.

    Raises:
        ConfigError: the tokenizer is not one of shapes.
    """
    decoder = _decoder(tokenizer)
    grid = tokenizer.encoder.grid(codes.shape)
    z_q = tokenizer.quantizer.decode(codes.indices[:1].to(_device(tokenizer)), grid)
    return Field(decoder, decoder.field(z_q.contiguous()))


def encode_mesh(tokenizer: Tokenizer, mesh: Mesh, seed: int = 0) -> Codes:
    """Return the codes of a mesh in [-1, 1], from points drawn on its surface.

    Args:
        tokenizer: of shapes.
        mesh: see ``data.meshes.read_mesh`` and ``fitted``; it need not be closed.
        seed: of the points.

    Raises:
        ConfigError: the tokenizer is not one of shapes.
    """
    _decoder(tokenizer)
    count = int(getattr(tokenizer.encoder, "points", 2048))
    points, _, _ = sample_surface(mesh, count, np.random.default_rng(seed))
    samples = np.concatenate([points.T, np.zeros((1, count))]).astype(np.float32)
    return tokenizer.encode(torch.from_numpy(samples)[None])


def at_most(tokenizer: Tokenizer, codes: Codes, n_bytes: int) -> tuple[Codes, bytes] | None:
    """Return the most scales of ``codes`` whose ``.tok`` file has at most ``n_bytes``, with it.

    Other heads than multi-scale ones have one size. None where no file is that small.
    """
    head = tokenizer.quantizer
    counts = range(len(head.scales), 0, -1) if isinstance(head, MultiScale) else [0]
    for count in counts:
        indices = codes.indices
        if isinstance(head, MultiScale):
            indices = head.prefix(indices, count, tokenizer.encoder.grid(codes.shape))
        part = replace(codes, indices=indices)
        data = to_bytes(part, tokenizer.prior)
        if len(data) <= n_bytes:
            return part, data
    return None


def at_bytes(
    tokenizer: Tokenizer, mesh: Mesh, n_bytes: int, side: int = 64, seed: int = 0
) -> tuple[Mesh, int] | None:
    """Return what comes back from a ``.tok`` file of at most ``n_bytes``, and the file's size.

    Args:
        tokenizer: of shapes.
        mesh: in [-1, 1].
        n_bytes: of the whole file.
        side: nodes per axis of the lattice on which the surface is found.
        seed: of the points that are encoded.

    Returns:
        None where the tokenizer makes no file that small.
    """
    found = at_most(tokenizer, encode_mesh(tokenizer, mesh, seed), n_bytes)
    if found is None:
        return None
    codes, data = found
    return field_of(tokenizer, codes).mesh(side), len(data)


def picture_at_bytes(
    tokenizer: Tokenizer, mesh: Mesh, path: str | Path, budgets: Sequence[int] = BUDGETS
) -> dict[int, int]:
    """Write a PNG of a mesh and what comes back at each number of bytes; return the files' sizes.

    Args:
        tokenizer: of shapes.
        mesh: in [-1, 1], see ``data.meshes.read_mesh`` and ``fitted``.
        path: of the PNG.
        budgets: most bytes of each file; those with no file that small are left out.

    Raises:
        MissingExtraError: matplotlib or scikit-image is not installed.
    """
    row, sizes = [("original", mesh)], {}
    for budget in budgets:
        found = at_bytes(tokenizer, mesh, budget)
        if found is not None:
            sizes[budget] = found[1]
            row.append((f"{found[1]} bytes", found[0]))
    save_meshes(path, [row])
    return sizes


def marched(distances: Floats) -> Mesh:
    """Return the surface of distances ``(n, n, n)`` on a lattice over [-1, 1], facing outwards.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise _missing("scikit-image") from error
    step = 2 / (distances.shape[0] - 1)
    around = np.pad(distances, 1, constant_values=max(float(distances.max()), step))
    if not around.min() < 0 < around.max():
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64))
    vertices, faces, _, _ = marching_cubes(around, 0.0)
    mesh = Mesh(vertices.astype(np.float64) * step - 1 - step, faces.astype(np.int64))
    return mesh if mesh.volume > 0 else Mesh(mesh.vertices, mesh.faces[:, ::-1].copy())


def save_meshes(path: str | Path, rows: Sequence[Sequence[tuple[str, Mesh | Floats]]]) -> None:
    """Write rows of meshes or points ``(N, 3)``, each under its title, as one PNG.

    Args:
        path: of the PNG.
        rows: of titles and shapes in [-1, 1]; y is up, as in most files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    import io

    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise _missing("matplotlib") from error
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(2.2 * columns, 2.4 * len(rows)), dpi=100)
    for i, row in enumerate(rows):
        for j, (title, shape) in enumerate(row):
            axes = figure.add_subplot(len(rows), columns, i * columns + j + 1, projection="3d")
            _draw(axes, shape)
            axes.set_title(title, fontsize=9)
    figure.subplots_adjust(0, 0, 1, 1 - 0.12 / len(rows), 0, 0.08)  # room for the titles
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(Path(path), buffer.getvalue())


def _draw(axes: Any, shape: Mesh | Floats) -> None:
    """Draw a mesh in the light of a lamp at the upper left, or points as dots."""
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    if isinstance(shape, Mesh):
        corners = shape.corners[:, :, [0, 2, 1]] * [1, -1, 1]  # y up
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        light = np.array([-0.4, -0.7, 0.6]) / np.linalg.norm([-0.4, -0.7, 0.6])
        bright = CORNER + (1 - CORNER) * np.clip(normals @ light, 0, 1)
        colours = bright[:, None] * np.array([0.55, 0.7, 0.9])
        axes.add_collection3d(Poly3DCollection(corners, facecolors=colours, edgecolors=colours))
    else:
        axes.scatter(shape[:, 0], -shape[:, 2], shape[:, 1], s=2, color=(0.3, 0.4, 0.6))
    for limit in (axes.set_xlim, axes.set_ylim, axes.set_zlim):
        limit(-0.75, 0.75)
    axes.set_box_aspect((1, 1, 1))
    axes.view_init(elev=20, azim=-60)
    axes.set_axis_off()


def _decoder(tokenizer: Tokenizer) -> FieldDecoder:
    decoder = tokenizer.decoder
    if not isinstance(decoder, FieldDecoder):
        raise ConfigError(
            f"shapes: expected a tokenizer of kind points with a decoder to a field; got "
            f"{type(decoder).__name__}. Choose one of shapes, e.g. backbone=tiny_triplane."
        )
    return decoder


def _device(tokenizer: Tokenizer) -> torch.device:
    return next(tokenizer.parameters()).device


def _missing(package: str) -> MissingExtraError:
    return MissingExtraError(
        f'shapes: expected the package {package}; got none. Run pip install "tokenizers_vq[mesh]".'
    )
