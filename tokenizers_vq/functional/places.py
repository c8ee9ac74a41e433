"""Where latents and cells of planes stand in [-1, 1]^3, and what is seen of points from there.

Reference:
    Chan et al., EG3D, 2022, https://arxiv.org/abs/2112.07945, section 4.2 (three planes). Places of
    latents and views are ours.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

PLANES = ((0, 1), (1, 2), (2, 0))  # the coordinates that lie in each plane
SHARPNESS = (4.0, 16.0, 64.0)  # of the views: what is seen lies within about 0.35, 0.18 and 0.09


def anchors(count: int) -> Tensor:
    """Return ``count`` places ``(count, 3)`` even in [-1, 1], neighbours near each other.

    A Sobol sequence in the order of its Morton codes: the bits of x, y and z in turn.
    """
    engine: Any = torch.quasirandom.SobolEngine
    places: Tensor = engine(3).draw(count)  # in [0, 1)
    bits = (places * 1024).long()
    code = torch.zeros(count, dtype=torch.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((bits[:, axis] >> bit) & 1) << (3 * bit + 2 - axis)
    return 2 * places[code.argsort(stable=True)] - 1


def cells(plane: int) -> Tensor:
    """Return the centres ``(3 * plane**2, 3)`` of the cells of the planes, 0 across them.

    Row by row, the first coordinate of ``PLANES`` along a row.
    """
    ticks = (torch.arange(plane) + 0.5) * 2 / plane - 1
    down, along = torch.meshgrid(ticks, ticks, indexing="ij")
    centres = torch.zeros(3, plane, plane, 3)
    for k, (first, second) in enumerate(PLANES):
        centres[k, ..., first], centres[k, ..., second] = along, down
    return centres.flatten(0, 2)


def projected(centres: Tensor, places: Tensor) -> Tensor:
    """Return the squared distances ``(3 * plane**2, M)`` of cells and places, in each plane."""
    parts = zip(centres.chunk(3), PLANES, strict=True)
    return torch.cat([
        torch.cdist(part[:, list(axes)], places[:, list(axes)]).square() for part, axes in parts
    ])  # fmt: skip


def views(points: Tensor, places: Tensor, frequencies: int) -> Tensor:
    """Return what is seen of points from places, one mean per sharpness.

    With weights ``w = softmax_p(-s |p - a|^2)`` of the points around a place a, for each s of
    ``SHARPNESS``: twice the mean of ``p - a``, twice the distance ``sqrt(-log(mean_p exp(-s |p -
    a|^2)) / s)``, and the means of the sines and cosines of ``2**k pi (p - a)``. From inside a
    surface the means of ``p - a`` are small, from outside they are about as long as the distance.

    Args:
        points: ``(B, P, 3)``.
        places: ``(M, 3)``.
        frequencies: number of k.

    Returns:
        ``(B, M, 3 * (6 * frequencies + 4))``.
    """
    squares = (points[:, None] - places[:, None]).square().sum(-1)  # (B, M, P)
    sines, cosines = fourier(points, frequencies).chunk(2, dim=-1)
    sine, cosine = fourier(places, frequencies).chunk(2, dim=-1)
    parts = []
    for sharpness in SHARPNESS:
        weights = (-sharpness * squares).softmax(-1)
        far = math.log(points.shape[1]) - (-sharpness * squares).logsumexp(-1, keepdim=True)
        s, c = weights @ sines, weights @ cosines
        parts += [2 * (weights @ points - places), 2 * (far / sharpness).clamp(min=1e-12).sqrt()]
        parts += [s * cosine - c * sine, c * cosine + s * sine]
    return torch.cat(parts, dim=-1)


def fourier(points: Tensor, frequencies: int) -> Tensor:
    """Return sines, then cosines, of ``2**k pi x`` for k below ``frequencies``.

    Args:
        points: ``(..., 3)``.
        frequencies: per axis.

    Returns:
        ``(..., 6 * frequencies)``; axis after axis.
    """
    powers = math.pi * 2.0 ** torch.arange(frequencies, device=points.device, dtype=points.dtype)
    angles = (points[..., None] * powers).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
