"""Triangle meshes as arrays: even samples of the surface, exact distances, what is inside.

Reference:
    Van Oosterom and Strackee, The Solid Angle of a Plane Triangle, 1983, eq. 8;
    Jacobson et al., Robust Inside-Outside Segmentation Using Generalized Winding Numbers, 2013,
    eq. 5;
    Ericson, Real-Time Collision Detection, 2005, section 5.1.5 (closest point of a triangle).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenizers_vq.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CHUNK = 1 << 21  # pairs of a point and a triangle at once


@dataclass(frozen=True)
class Mesh:
    """A surface of triangles.

    Attributes:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)`` rows of ``vertices``, counter-clockwise seen from outside.
    """

    vertices: Floats
    faces: Ints

    @property
    def corners(self) -> Floats:
        """The corners of every triangle, ``(F, 3, 3)``."""
        return self.vertices[self.faces]

    @property
    def volume(self) -> float:
        """What a closed surface encloses; below 0 when its triangles face inwards."""
        a, b, c = self.corners.transpose(1, 0, 2)
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)

    @property
    def is_closed(self) -> bool:
        """Whether every edge has one triangle on either side, facing the same way."""
        first, second = self.faces.T.flatten(), np.roll(self.faces, -1, axis=1).T.flatten()
        forth = first * len(self.vertices) + second
        back = second * len(self.vertices) + first
        once = len(np.unique(forth)) == len(forth)
        return bool(len(forth)) and once and bool(np.array_equal(np.sort(forth), np.sort(back)))


def sample_surface(
    mesh: Mesh, count: int, generator: np.random.Generator
) -> tuple[Floats, Floats, Ints]:
    """Return points ``(count, 3)`` drawn evenly, their normals ``(count, 3)`` and their triangles.

    A triangle is drawn in proportion to its area, a point in it by folding the unit square.

    Raises:
        DataError: the mesh has no area.
    """
    corners = mesh.corners
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    twice = np.linalg.norm(normals, axis=1)
    if not twice.sum() > 0:
        raise DataError("sample_surface: expected a mesh with some area; got none. Leave it out.")
    face = generator.choice(len(corners), size=count, p=twice / twice.sum())
    u, v = generator.random((2, count, 1))
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    a, b, c = corners[face].transpose(1, 0, 2)
    unit = normals[face] / np.maximum(twice[face], 1e-300)[:, None]
    return a + u * (b - a) + v * (c - a), unit, face.astype(np.int64)


def winding_number(mesh: Mesh, points: Floats) -> Floats:
    """Return how often the surface goes around ``points (N, 3)``, ``(N,)``: 1 inside, 0 outside."""
    corners = mesh.corners.astype(np.float32)
    step = max(1, CHUNK // max(len(corners), 1))
    parts = [_turns(corners, points[i : i + step]) for i in range(0, len(points), step)]
    return np.concatenate(parts) if parts else np.empty(0)


def _turns(corners: NDArray[np.float32], points: Floats) -> Floats:
    """Return the solid angles of all triangles ``(F, 3, 3)`` at points, summed, over 4 pi."""
    a, b, c = (corners[None, :, k] - points[:, None].astype(np.float32) for k in range(3))
    la, lb, lc = (np.sqrt(np.einsum("nfi,nfi->nf", v, v)) for v in (a, b, c))
    triple = np.einsum("nfi,nfi->nf", a, np.cross(b, c))
    below = la * lb * lc
    for p, q, r in ((a, b, lc), (b, c, la), (c, a, lb)):
        below += np.einsum("nfi,nfi->nf", p, q) * r
    return np.asarray(np.arctan2(triple, below).sum(1, dtype=np.float64) / (2 * np.pi))


def distance_to(mesh: Mesh, points: Floats, generator: np.random.Generator) -> Floats:
    """Return the distance of ``points (N, 3)`` to the surface, ``(N,)``, without a sign.

    Exact to the triangles of the 8 nearest of 50,000 samples, which is the surface but for rare
    places where a tiny triangle was drawn less often.
    """
    from scipy.spatial import cKDTree

    drawn, _, face = sample_surface(mesh, 50_000, generator)
    _, near = cKDTree(drawn).query(points, k=8)
    corners = mesh.corners
    best = np.full(len(points), np.inf)
    for column in near.T:
        best = np.minimum(best, triangle_distance(corners[face[column]], points))
    return best


def triangle_distance(corners: Floats, points: Floats) -> Floats:
    """Return the distances ``(N,)`` of ``points (N, 3)`` to one triangle ``(N, 3, 3)`` each."""
    a, b, c = corners.transpose(1, 0, 2)
    edges = [_segment_distance(p, q, points) for p, q in ((a, b), (b, c), (c, a))]
    normal = np.cross(b - a, c - a)
    inside = np.ones(len(points), dtype=bool)
    for p, q in ((a, b), (b, c), (c, a)):
        inside &= np.einsum("ni,ni->n", np.cross(normal, q - p), points - p) >= 0
    length = np.linalg.norm(normal, axis=1)
    plane = np.abs(np.einsum("ni,ni->n", normal, points - a)) / np.maximum(length, 1e-300)
    return np.asarray(np.where(inside & (length > 0), plane, np.min(edges, axis=0)))


def _segment_distance(p: Floats, q: Floats, points: Floats) -> Floats:
    along = q - p
    square = np.maximum(np.einsum("ni,ni->n", along, along), 1e-300)
    share = np.clip(np.einsum("ni,ni->n", points - p, along) / square, 0, 1)
    return np.asarray(np.linalg.norm(points - p - share[:, None] * along, axis=1))
