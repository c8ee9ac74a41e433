"""Exact lengths: pad a signal to whole latent positions, and crop the decoded signal back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError


def grid_shape(
    shape: Sequence[int], stride: Sequence[int], first: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return the latent positions per axis, ``1 + ceil((samples - first) / stride)``.

    Args:
        shape: samples per axis, each at least 1.
        stride: samples per latent position, one per axis.
        first: samples of the first position, at most the stride; None for as many as the others,
            which gives ``ceil(samples / stride)``.

    Raises:
        ShapeError: the numbers of axes differ, or an axis is empty.
    """
    if len(shape) != len(stride):
        raise ShapeError(
            f"grid_shape: expected {len(stride)} sample axes, one per stride; got shape "
            f"{tuple(shape)}. Leave batch and channels out."
        )
    if any(size < 1 for size in shape):
        raise ShapeError(
            f"grid_shape: expected at least 1 sample per axis; got {tuple(shape)}. "
            "Drop empty signals."
        )
    rows = zip(shape, stride, first or stride, strict=True)
    return tuple(1 - (head - size) // step for size, step, head in rows)


def samples_of(
    grid: Sequence[int], stride: Sequence[int], first: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return the samples per axis of whole positions ``grid``; see ``grid_shape``."""
    rows = zip(grid, stride, first or stride, strict=True)
    return tuple(head + (count - 1) * step for count, step, head in rows)


def padded_shape(
    shape: Sequence[int], stride: Sequence[int], first: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return the samples of the fewest whole positions that hold ``shape`` samples.

    Raises:
        ShapeError: as in ``grid_shape``.
    """
    return samples_of(grid_shape(shape, stride, first), stride, first)


def pad_to_stride(x: Tensor, stride: Sequence[int], first: Sequence[int] | None = None) -> Tensor:
    """Repeat the last sample of every axis until its length is whole positions.

    The edge is repeated, not mirrored, because a mirror needs more samples than a short signal
    has; it is at the end, so a position always starts at the same sample.

    Args:
        x: ``(B, C, *S)`` of any dtype, each axis of S at least 1.
        stride: samples per latent position, one per axis of S.
        first: samples of the first position; see ``grid_shape``.

    Returns:
        ``(B, C, *padded_shape(S, stride, first))``; ``x`` itself when nothing is missing.

    Raises:
        ShapeError: ``x`` has another rank, or an axis is empty.
    """
    if x.ndim != len(stride) + 2:
        raise ShapeError(
            f"pad_to_stride: expected a signal (B, C, {len(stride)} sample axes); got "
            f"{tuple(x.shape)}. Add the batch axis with x[None]."
        )
    for axis, length in enumerate(padded_shape(x.shape[2:], stride, first), start=2):
        missing = length - x.shape[axis]
        if missing:
            edge = x.narrow(axis, x.shape[axis] - 1, 1)
            repeats = [missing if i == axis else -1 for i in range(x.ndim)]
            x = torch.cat([x, edge.expand(repeats)], dim=axis)
    return x


def crop(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the first ``shape`` samples of a signal; the inverse of ``pad_to_stride``.

    Args:
        x: ``(B, C, *S)``.
        shape: samples to keep per axis of S.

    Returns:
        ``(B, C, *shape)``, a view.

    Raises:
        ShapeError: ``x`` has another rank or fewer samples than ``shape``.
    """
    have = tuple(x.shape[2:])
    if len(have) != len(shape) or any(size > got for size, got in zip(shape, have, strict=True)):
        raise ShapeError(
            f"crop: expected a signal of at least {tuple(shape)} samples; got {have}. "
            "Crop what decode returned to the shape that was encoded."
        )
    for axis, size in enumerate(shape, start=2):
        x = x.narrow(axis, 0, size)
    return x
