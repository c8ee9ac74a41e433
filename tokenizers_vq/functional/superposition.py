"""The rigid motion, and the scale, that lay one set of points on another as well as can be.

Reference:
    Kabsch, A Solution for the Best Rotation to Relate Two Sets of Vectors, 1976,
    https://doi.org/10.1107/S0567739476001873; Umeyama, Least-Squares Estimation of Transformation
    Parameters Between Two Point Patterns, 1991, https://doi.org/10.1109/34.88573, eq. 34-43.
"""

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError


def superposition(
    points: Tensor, target: Tensor, weights: Tensor | None = None, scale: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return R, t and s of least ``sum w |s R p + t - q|^2``; R never mirrors.

    Args:
        points: p ``(..., N, 3)``.
        target: q ``(..., N, 3)``.
        weights: w ``(..., N)`` of 0 and more, such as a mask; None for 1. All zero leaves the
            points turned somehow around the origin.
        scale: whether s is free; else it is 1.

    Returns:
        R ``(..., 3, 3)``, t ``(..., 3)`` and s ``(...)``; ``s * points @ R.mT + t`` is on target.

    Raises:
        ShapeError: the shapes do not match.
    """
    if points.shape != target.shape or points.shape[-1] != 3:
        raise ShapeError(
            f"superposition: expected two sets of points (..., N, 3); got {tuple(points.shape)} "
            f"and {tuple(target.shape)}. Pair them first."
        )
    w = torch.ones_like(points[..., 0]) if weights is None else weights.to(points)
    w = (w / w.sum(-1, keepdim=True).clamp(min=1e-12))[..., None]
    center, onto = (w * points).sum(-2, keepdim=True), (w * target).sum(-2, keepdim=True)
    p, q = points - center, target - onto
    u, sizes, vt = torch.linalg.svd((w * q).mT @ p)
    sign = torch.ones_like(sizes)
    sign[..., 2] = torch.sign(torch.linalg.det(u @ vt))
    rotation = u @ (sign[..., None] * vt)
    s = torch.ones_like(sizes[..., 0])
    if scale:
        s = (sizes * sign).sum(-1) / (w * p.square()).sum((-1, -2)).clamp(min=1e-12)
    shift = onto[..., 0, :] - s[..., None] * (rotation @ center.mT)[..., 0]
    return rotation, shift, s


def superposed(
    points: Tensor, target: Tensor, weights: Tensor | None = None, scale: bool = False
) -> Tensor:
    """Return the points ``(..., N, 3)`` laid on the target; arguments as of ``superposition``."""
    rotation, shift, s = superposition(points, target, weights, scale)
    return s[..., None, None] * points @ rotation.mT + shift[..., None, :]
