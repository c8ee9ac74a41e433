"""Generated solids with their signed distances, for tests, first runs and small trainings."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.points import SIGNAL, sampled
from tokenizers_vq.data.transforms import draw_generator
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional import solids
from tokenizers_vq.functional.solids import Floats, Solid

REACH = 0.9
"""Largest coordinate of a shape; what is left of [-1, 1] shows that it ends."""
SIZES = (0.06, 0.8)
"""Of parts, from half of the thickness of a plate to half of the length of a rod."""
MIRROR = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class SyntheticShapes(SignalDataset):
    """Solids made of 1 to ``parts`` spheres, boxes, tori, capsules, cylinders and superquadrics.

    Each further part is put on the surface of what there is, turned at random, so that a shape is
    one piece; in half of the shapes its mirror image comes with it. Sizes are even in their
    logarithm: plates and rods are as frequent as blocks. From up to one shape in three something is
    cut out. Shapes are centred and scaled so that the largest coordinate is 0.9. Shape ``i`` is a
    function of ``seed``, ``i`` and ``parts``; its samples also of ``epoch``.

    Args:
        n: number of shapes.
        surface: samples on the surface, which come first.
        queries: further samples, see ``points.sampled``.
        parts: most parts of a shape.
        seed: another seed gives other shapes.

    Shapes:
        item ``(4, surface + queries)`` float32: x, y, z, signed distance

    Raises:
        ConfigError: ``n``, ``parts`` or ``surface`` is below 1, or ``queries`` below 0.
    """

    def __init__(
        self, n: int = 4096, surface: int = 512, queries: int = 1024, parts: int = 6, seed: int = 0
    ) -> None:
        if min(n, surface, parts) < 1 or queries < 0:
            raise ConfigError(
                "SyntheticShapes: expected n, surface and parts of 1 or more and queries of 0 or "
                f"more; got n={n}, surface={surface}, parts={parts}, queries={queries}."
            )
        super().__init__([f"{index:08d}" for index in range(n)], SIGNAL)
        self.surface, self.queries, self.parts, self.seed = surface, queries, parts, seed
        self._solids: dict[int, Solid] = {}  # a few numbers each; making one costs as a sampling

    def solid(self, index: int) -> Solid:
        """Return shape ``index``, inside [-0.9, 0.9] on all axes."""
        if index not in self._solids:
            generator = draw_generator(self.seed, 0, index)
            whole = _assembled(int(generator.integers(1, self.parts + 1)), generator)
            self._solids[index] = _fitted(whole, generator)
        return self._solids[index]

    def item(self, index: int, epoch: int) -> Tensor:
        """Return samples ``(4, N)`` of shape ``index``, others in every epoch."""
        solid, generator = self.solid(index), draw_generator(self.seed, epoch + 1, index)
        points = solid.surface(self.surface + self.queries // 2, generator)
        return sampled(points, self.surface, self.queries, solid.distance, generator)

    def sha256(self) -> str:
        """Return the hex digest over the ids and samples of all shapes; makes each of them."""
        digest = hashlib.sha256()
        for index, id_ in enumerate(self.ids):
            digest.update(id_.encode() + self.item(index, 0).numpy().tobytes())
        return digest.hexdigest()


def _assembled(count: int, generator: np.random.Generator) -> Solid:
    parts: list[Solid] = [_part(generator)]
    mirrored = generator.random() < 0.5
    while len(parts) < count:
        spot = solids.Union(parts).surface(1, generator)[0]
        turn = solids.random_rotation(generator) if generator.random() < 0.7 else None
        part = solids.Moved(
            _part(generator), _triple(spot), turn, float(generator.uniform(0.4, 1.0))
        )
        parts.append(part)
        if mirrored and len(parts) < count:
            parts.append(solids.Moved(part, rotation=MIRROR))
    whole: Solid = solids.Union(parts) if len(parts) > 1 else parts[0]
    if generator.random() < 0.33:
        spots = whole.surface(64, generator)
        turn = solids.random_rotation(generator)
        cut = solids.Moved(_part(generator), _triple(spots[0]), turn, 0.6)
        if (cut.distance(spots) > 0).mean() > 0.25:  # it leaves something
            whole = solids.Carved(whole, cut)
    if generator.random() < 0.5:
        whole = solids.Moved(whole, rotation=solids.random_rotation(generator))
    return whole


def _part(generator: np.random.Generator) -> Solid:
    """Return one solid of about unit size."""
    low, high = np.log(SIZES)
    a, b, c = (float(size) for size in np.exp(generator.uniform(low, high, 3)))
    kind = int(generator.integers(7))
    if kind == 0:
        return solids.Sphere(0.2 + a / 2)
    if kind == 1:
        return solids.Box((a, b, c))
    if kind == 2:
        return solids.Torus(0.3 + a / 2, 0.08 + b / 4)
    if kind == 3:
        return solids.Capsule(a, 0.08 + b / 3)
    if kind == 4:
        return solids.Cylinder(a, b)
    e1, e2 = (float(e) for e in generator.uniform(0.3, 1.0, 2))
    return solids.Superquadric((a, b, c), *((e1, e2) if kind == 5 else (1.0, 1.0)))


def _fitted(solid: Solid, generator: np.random.Generator) -> Solid:
    """Return the solid, centred and scaled so that its largest coordinate is ``REACH``."""
    points = solid.surface(600, generator)
    low, high = points.min(0), points.max(0)
    scale = REACH / max(float((high - low).max()) / 2, 1e-6)
    offset = _triple(-scale * (low + high) / 2)
    return solids.Moved(solid, offset, scale=scale)


def _triple(values: Floats) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
