"""Solids with a formula: signed distances, and points spread evenly over their surfaces.

Distances are below 0 inside. Those of spheres, boxes, tori, capsules and cylinders are exact. A
superquadric's is to first order. Of a union the distance is exact outside, of a carved solid
inside, and else a bound: at least as near as the surface is; the sign is right everywhere.

Reference:
    Hart, Sphere Tracing: A Geometric Method for the Antialiased Ray Tracing of Implicit Surfaces,
    1996, appendix A, and section 2.3 (sets: minimum and maximum of distances);
    Barr, Superquadrics and Angle-Preserving Transformations, 1981, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Solid(Protocol):
    """A solid around the origin, in any unit."""

    @property
    def area(self) -> float:
        """Of the surface, by which points are shared out between solids; may be approximate."""

    def distance(self, points: Floats) -> Floats:
        """Return the signed distances ``(N,)`` of ``points (N, 3)``."""

    def surface(self, count: int, generator: np.random.Generator) -> Floats:
        """Return ``(count, 3)`` points drawn evenly from the surface."""


@dataclass(frozen=True)
class Sphere:
    """A ball of a ``radius``."""

    radius: float

    @property
    def area(self) -> float:
        """4 pi r^2."""
        return float(4 * np.pi * self.radius**2)

    def distance(self, points: Floats) -> Floats:
        """Return the signed distances ``(N,)`` of ``points (N, 3)``."""
        return np.asarray(np.linalg.norm(points, axis=1) - self.radius)

    def surface(self, count: int, generator: np.random.Generator) -> Floats:
        """Return ``(count, 3)`` points drawn evenly from the surface."""
        return self.radius * _directions(count, generator)


@dataclass(frozen=True)
class Box:
    """A box that reaches ``half`` of its sides from the origin."""

    half: tuple[float, float, float]

    @property
    def area(self) -> float:
        """8 (ab + bc + ca)."""
        a, b, c = self.half
        return 8 * (a * b + b * c + c * a)

    def distance(self, points: Floats) -> Floats:
        """Return the signed distances ``(N,)`` of ``points (N, 3)``."""
        q = np.abs(points) - self.half
        outside = np.linalg.norm(np.maximum(q, 0), axis=1)
        return np.asarray(outside + np.minimum(q.max(axis=1), 0))

    def surface(self, count: int, generator: np.random.Generator) -> Floats:
        """Return ``(count, 3)`` points drawn evenly from the surface."""
        half = np.asarray(self.half)
        across = np.array([half[1] * half[2], half[2] * half[0], half[0] * half[1]])
        axis = generator.choice(3, size=count, p=across / across.sum())
        points = generator.uniform(-1, 1, (count, 3))
        points[np.arange(count), axis] = generator.choice([-1.0, 1.0], size=count)
        return np.asarray(points * half)


@dataclass(frozen=True)
class Torus:
    """A ring around the z axis: a tube of radius ``minor`` at ``major`` from it."""

    major: float
    minor: float

    @property
    def area(self) -> float:
        """4 pi^2 R r."""
        return float(4 * np.pi**2 * self.major * self.minor)

    def distance(self, points: Floats) -> Floats:
        """Return the signed distances ``(N,)`` of ``points (N, 3)``."""
        ring = np.hypot(points[:, 0], points[:, 1]) - self.major
        return np.asarray(np.hypot(ring, points[:, 2]) - self.minor)

    def surface(self, count: int, generator: np.random.Generator) -> Floats:
        """Return ``(count, 3)`` points drawn evenly from the surface."""
        tube = np.empty(0)
        while len(tube) < count:  # the outer half of the tube has more area
            drawn = generator.uniform(0, 2 * np.pi, 2 * count + 8)
            wide = (self.major + self.minor * np.cos(drawn)) / (self.major + self.minor)
            tube = np.concatenate([tube, drawn[generator.random(len(drawn)) < wide]])
        tube, turn = tube[:count], generator.uniform(0, 2 * np.pi, count)
        out = self.major + self.minor * np.cos(tube)
        return np.stack([out * np.cos(turn), out * np.sin(turn), self.minor * np.sin(tube)], 1)


@dataclass(frozen=True)
class Capsule:
    """All points within ``radius`` of the z axis between ``-half`` and ``half``."""

    half: float
    radius: float

    @property
    def area(self) -> float:
        """4 pi r (h + r)."""
        return float(4 * np.pi * self.radius * (self.half + self.radius))

    def distance(self, points: Floats) -> Floats:
        """Return the signed distances ``(N,)`` of ``points (N, 3)``."""
        z = points[:, 2] - np.clip(points[:, 2], -self.half, self.half)
        across = np.hypot(points[:, 0], points[:, 1])
        return np.asarray(np.hypot(across, z) - self.radius)

    def surface(self, count: int, generator: np.random.Generator) -> Floats:
        """Return ``(count, 3)`` points drawn evenly from the surface."""
        points = self.radius * _directions(count, generator)
        points[:, 2] += self.half * np.sign(points[:, 2])
        side = generator.random(count) < self.half / (self.half + self.radius)
        points[side] = _tube(int(side.sum()), self.half, self.radius, generator)
        return points


@dataclass(frozen=True)
class Cylinder:
    """A round rod along z from ``-half`` to ``half``."""

    half: float
    radius: float

    @property
    def area(self) -> float:
        """2 pi r (2 h + r)."""
        return float(2 * np.pi * self.radius * (2 * self.half + self.radius))

    def distance(self, points: Floats) -> Floats:
        """Return the signed distances ``(N,)`` of ``points (N, 3)``."""
        across = np.hypot(points[:, 0], points[:, 1]) - self.radius
        along = np.abs(points[:, 2]) - self.half
        outside = np.hypot(np.maximum(across, 0), np.maximum(along, 0))
        return np.asarray(outside + np.minimum(np.maximum(across, along), 0))

    def surface(self, count: int, generator: np.random.Generator) -> Floats:
        """Return ``(count, 3)`` points drawn evenly from the surface."""
        radius = self.radius * np.sqrt(generator.random(count))
        turn = generator.uniform(0, 2 * np.pi, count)
        end = self.half * generator.choice([-1.0, 1.0], size=count)
        points = np.stack([radius * np.cos(turn), radius * np.sin(turn), end], 1)
        side = generator.random(count) < 2 * self.half / (2 * self.half + self.radius)
        points[side] = _tube(int(side.sum()), self.half, self.radius, generator)
        return points


@dataclass(frozen=True)
class Superquadric:
    """``((|x/a|^(2/e2) + |y/b|^(2/e2))^(e2/e1) + |z/c|^(2/e1))^(e1/2) <= 1``.

    Exponents of 1 make an ellipsoid, towards 0 a box. The distance is to first order.

    Attributes:
        radii: a, b, c.
        e1: exponent along z, above 0 and at most 1.
        e2: exponent around z, likewise.
    """

    radii: tuple[float, float, float]
    e1: float = 1.0
    e2: float = 1.0

    @property
    def area(self) -> float:
        """That of the ellipsoid, by Thomsen's formula."""
        a, b, c = (r**1.6075 for r in self.radii)
        return float(4 * np.pi * ((a * b + b * c + c * a) / 3) ** (1 / 1.6075))

    def gauge(self, points: Floats) -> Floats:
        """Return by which factor ``points (N, 3)`` are outside, ``(N,)``: 1 on the surface."""
        x, y, z = (np.abs(points) / self.radii).T
        flat = (x ** (2 / self.e2) + y ** (2 / self.e2)) ** (self.e2 / self.e1)
        return np.asarray((flat + z ** (2 / self.e1)) ** (self.e1 / 2))

    def distance(self, points: Floats) -> Floats:
        """Return ``(gauge - 1) / |gradient|`` of ``points (N, 3)``, ``(N,)``."""
        slope = np.linalg.norm(_gradient(self.gauge, points), axis=1)
        return np.asarray((self.gauge(points) - 1) / np.maximum(slope, 1e-6))

    def surface(self, count: int, generator: np.random.Generator) -> Floats:
        """Return ``(count, 3)`` points drawn evenly from the surface.

        Each direction u meets it once, at distance r; a cone around u cuts out an area in
        proportion to ``r^2 / (u n)`` with the normal n, and is kept in that proportion.
        """
        u = _directions(3 * count + 16, generator)
        points = u / self.gauge(u)[:, None]
        normal = _gradient(self.gauge, points)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        area = (points**2).sum(1) / np.maximum((u * normal).sum(1), 0.05)
        chosen = generator.choice(len(u), size=count, p=area / area.sum())
        return np.asarray(points[chosen])


@dataclass(frozen=True)
class Moved:
    """A solid that is scaled, then rotated, then shifted.

    Attributes:
        solid: what is moved.
        offset: of its origin.
        rotation: rows of a rotation matrix; None for none.
        scale: of its size.
    """

    solid: Solid
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[tuple[float, ...], ...] | None = None
    scale: float = 1.0

    @property
    def area(self) -> float:
        """That of the solid times the square of the scale."""
        return self.solid.area * self.scale**2

    def distance(self, points: Floats) -> Floats:
        """Return the signed distances ``(N,)`` of ``points (N, 3)``."""
        back = (points - self.offset) @ self._matrix / self.scale
        return self.solid.distance(back) * self.scale

    def surface(self, count: int, generator: np.random.Generator) -> Floats:
        """Return ``(count, 3)`` points drawn evenly from the surface."""
        points = self.solid.surface(count, generator) * self.scale
        return np.asarray(points @ self._matrix.T + self.offset)

    @property
    def _matrix(self) -> Floats:
        return np.eye(3) if self.rotation is None else np.asarray(self.rotation)


@dataclass(frozen=True)
class Union:
    """What is in any of ``parts``."""

    parts: Sequence[Solid]

    @property
    def area(self) -> float:
        """The sum of the parts' areas: more than there is where they overlap."""
        return sum(part.area for part in self.parts)

    def distance(self, points: Floats) -> Floats:
        """Return the least distance of the parts, ``(N,)``."""
        return np.asarray(np.min([part.distance(points) for part in self.parts], axis=0))

    def surface(self, count: int, generator: np.random.Generator) -> Floats:
        """Return ``(count, 3)`` points drawn evenly from the surface.

        Points of the parts in proportion to their areas, without those inside of another part.
        """
        shares = np.array([part.area for part in self.parts]) / self.area

        def draw(number: int) -> Floats:
            kept = []
            for i, n in enumerate(generator.multinomial(number, shares)):
                points = self.parts[i].surface(int(n), generator)
                others = [part for j, part in enumerate(self.parts) if j != i]
                hidden = [part.distance(points) < 0 for part in others]
                kept.append(points[~np.any(hidden, axis=0)] if hidden else points)
            return np.concatenate(kept)

        return _enough(draw, count, generator)


@dataclass(frozen=True)
class Carved:
    """What is in ``solid`` and not in ``cut``."""

    solid: Solid
    cut: Solid

    @property
    def area(self) -> float:
        """The sum of both areas: more than there is."""
        return self.solid.area + self.cut.area

    def distance(self, points: Floats) -> Floats:
        """Return the larger of the solid's distance and minus the cut's, ``(N,)``."""
        return np.maximum(self.solid.distance(points), -self.cut.distance(points))

    def surface(self, count: int, generator: np.random.Generator) -> Floats:
        """Return ``(count, 3)`` points drawn evenly from the surface."""
        share = self.solid.area / self.area

        def draw(number: int) -> Floats:
            n = int(generator.binomial(number, share))
            outer = self.solid.surface(n, generator)
            inner = self.cut.surface(number - n, generator)
            kept = (
                outer[self.cut.distance(outer) > 0], inner[self.solid.distance(inner) < 0]
            )  # fmt: skip
            return np.concatenate(kept)

        return _enough(draw, count, generator)


def random_rotation(generator: np.random.Generator) -> tuple[tuple[float, ...], ...]:
    """Return the rows of a rotation matrix drawn evenly from all rotations."""
    q, r = np.linalg.qr(generator.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return tuple(tuple(map(float, row)) for row in q)


def _enough(draw: Callable[[int], Floats], count: int, generator: np.random.Generator) -> Floats:
    """Return ``(count, 3)`` of what ``draw`` returns, in random order; it may return fewer."""
    kept = draw(count + count // 2 + 16)
    for _ in range(20):
        if len(kept) >= count:
            break
        kept = np.concatenate([kept, draw(2 * count + 16)])
    order = generator.permutation(len(kept))
    return np.asarray(kept[order[np.arange(count) % max(len(kept), 1)]])


def _directions(count: int, generator: np.random.Generator) -> Floats:
    """Return ``(count, 3)`` unit vectors, even over the sphere."""
    drawn = generator.standard_normal((count, 3))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def _tube(count: int, half: float, radius: float, generator: np.random.Generator) -> Floats:
    """Return ``(count, 3)`` points of the side of a cylinder."""
    turn = generator.uniform(0, 2 * np.pi, count)
    z = generator.uniform(-half, half, count)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)


def _gradient(function: Callable[[Floats], Floats], points: Floats, step: float = 1e-4) -> Floats:
    """Return the gradients ``(N, 3)`` by central differences."""
    columns = []
    for axis in range(3):
        shift = step * np.eye(3)[axis]
        columns.append((function(points + shift) - function(points - shift)) / (2 * step))
    return np.stack(columns, axis=1)
