"""Rotation matrices: from six numbers, from two directions, about the vertical axis.

A matrix ``R`` acts on columns, ``y = R x``, so that ``vectors @ R.mT`` turns rows.
"""

import torch
from torch import Tensor

EPS = 1e-8


def orthonormal(first: Tensor, second: Tensor) -> Tensor:
    """Return the rotations whose first two columns come from two vectors by Gram-Schmidt.

    Vectors that are zero or parallel give finite matrices that are no rotations.

    Args:
        first: ``(..., 3)``, along the first column.
        second: ``(..., 3)``, in the plane of the first two columns.

    Returns:
        ``(..., 3, 3)``.

    Reference:
        Zhou et al., On the Continuity of Rotation Representations in Neural Networks, 2019,
        https://arxiv.org/abs/1812.07035, eq. 15; Jumper et al., 2021 (AlphaFold), algorithm 21.
    """
    x = _unit(first)
    y = _unit(second - (x * second).sum(-1, keepdim=True) * x)
    return torch.stack([x, y, torch.linalg.cross(x, y, dim=-1)], dim=-1)


def from_six(six: Tensor) -> Tensor:
    """Return rotations ``(..., 3, 3)`` of ``(..., 6)``: the first column, then the second."""
    return orthonormal(six[..., :3], six[..., 3:])


def to_six(rotations: Tensor) -> Tensor:
    """Return the first two columns of ``(..., 3, 3)``, one behind the other, as ``(..., 6)``."""
    return rotations[..., :2].mT.flatten(-2)


def shortest_arc(start: Tensor, end: Tensor) -> Tensor:
    """Return the rotation by the smallest angle that takes one direction to another.

    With ``v = start x end`` and ``c = start . end`` of unit vectors it is
    ``I + [v] + [v]^2 / (1 + c)`` (Rodrigues). Opposite directions have none: they give a finite
    matrix that is no rotation.

    Args:
        start: ``(..., 3)`` of any length; zero counts as ``end``.
        end: ``(..., 3)``, the same.

    Returns:
        ``(..., 3, 3)``.
    """
    start, end = _unit(start), _unit(end)
    start, end = start + torch.zeros_like(end), end + torch.zeros_like(start)
    still = ((start == 0).all(-1) | (end == 0).all(-1))[..., None]
    end = torch.where(still, start, end)
    v = torch.linalg.cross(start, end, dim=-1)
    c = torch.where(still[..., 0], 1.0, (start * end).sum(-1))
    k = _skew(v)
    one = torch.eye(3, dtype=k.dtype, device=k.device)
    return one + k + k @ k / (1 + c).clamp(min=EPS)[..., None, None]


def about_vertical(angle: Tensor) -> Tensor:
    """Return rotations ``(..., 3, 3)`` by ``angle (...)`` radians about the axis y, z towards x."""
    c, s = angle.cos(), angle.sin()
    one, zero = torch.ones_like(c), torch.zeros_like(c)
    rows = torch.stack([c, zero, s, zero, one, zero, -s, zero, c], dim=-1)
    return _matrix(rows)


def turned(rotations: Tensor, vectors: Tensor) -> Tensor:
    """Return ``R v`` of rotations ``(..., 3, 3)`` and vectors ``(..., 3)``, broadcast."""
    return (rotations @ vectors[..., None])[..., 0]


def _unit(vector: Tensor) -> Tensor:
    length = vector.square().sum(-1, keepdim=True).clamp(min=EPS * EPS).sqrt()
    return vector / length


def _skew(v: Tensor) -> Tensor:
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return _matrix(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1))


def _matrix(rows: Tensor) -> Tensor:
    return rows.reshape(*rows.shape[:-1], 3, 3)
