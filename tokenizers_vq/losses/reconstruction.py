"""Distances between a signal and its reconstruction, sample by sample.

Each is a mean over every sample of the batch, taken in float32.
"""

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError


def l1(x: Tensor, x_hat: Tensor) -> Tensor:
    """Return the mean absolute error of ``x_hat`` as a ``()`` float32 tensor.

    Args:
        x: the signal ``(B, C, *S)``.
        x_hat: its reconstruction, of the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    return _difference(x, x_hat).abs().mean()


def l2(x: Tensor, x_hat: Tensor) -> Tensor:
    """Return the mean squared error of ``x_hat`` as a ``()`` float32 tensor.

    Args:
        x: the signal ``(B, C, *S)``.
        x_hat: its reconstruction, of the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    return _difference(x, x_hat).square().mean()


def smooth_l1(x: Tensor, x_hat: Tensor) -> Tensor:
    """Return the mean of ``e^2 / 2`` where an error e is below 1, else of ``|e| - 1/2``.

    Args:
        x: the signal ``(B, C, *S)``.
        x_hat: its reconstruction, of the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    error = _difference(x, x_hat).abs()
    return torch.where(error < 1, 0.5 * error.square(), error - 0.5).mean()


def mix(x: Tensor, x_hat: Tensor, l1_share: float = 0.5) -> Tensor:
    """Return ``l1_share * l1 + (1 - l1_share) * l2`` as a ``()`` float32 tensor.

    Args:
        x: the signal ``(B, C, *S)``.
        x_hat: its reconstruction, of the same shape.
        l1_share: between 0 and 1.

    Raises:
        ShapeError: the shapes differ.
    """
    return l1_share * l1(x, x_hat) + (1 - l1_share) * l2(x, x_hat)


def _difference(x: Tensor, x_hat: Tensor) -> Tensor:
    if x.shape != x_hat.shape:
        raise ShapeError(
            f"reconstruction: expected shape {tuple(x.shape)}; got {tuple(x_hat.shape)}. "
            "Crop the reconstruction to the signal."
        )
    return x_hat.float() - x.float()
