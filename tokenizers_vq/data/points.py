"""Samples of signed distances: the signals of kind ``points``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.functional.solids import Floats
from tokenizers_vq.types import SignalSpec

SIGNAL = SignalSpec("points", channels=4)
NEAR = (0.02, 0.08)
"""Standard deviations of what is near the surface, half of the samples each."""


def sampled(
    surface: Floats,
    count: int,
    queries: int,
    distance: Callable[[Floats], Floats],
    generator: np.random.Generator,
) -> Tensor:
    """Return samples ``(4, count + queries)`` float32 of a shape: x, y, z, signed distance.

    The first ``count`` are on the surface, with distance 0. Of the others the first half are near
    it, at further points of it plus normal noise, and the second half even in [-1, 1].

    Args:
        surface: ``(count + queries // 2, 3)`` points of the surface.
        count: samples on the surface.
        queries: further samples.
        distance: signed distances ``(N,)`` of points ``(N, 3)``.
        generator: draws the places.
    """
    near = surface[count : count + queries // 2]
    width = np.where(np.arange(len(near)) % 2, *NEAR)[:, None]
    near = near + width * generator.standard_normal(near.shape)
    even = generator.uniform(-1, 1, (queries - len(near), 3))
    places = np.concatenate([near, even]).clip(-1, 1)
    away = distance(places) if queries else np.empty(0)
    signed = np.concatenate([np.zeros(count), away]).clip(-1, 1)
    points = np.concatenate([surface[:count].clip(-1, 1), places])
    return torch.from_numpy(np.concatenate([points.T, signed[None]]).astype(np.float32))
