"""Moments of each channel over the valid rows of all ranks."""

import torch
from torch import Tensor

from tokenizers_vq.functional.distributed import sum_over_ranks, total_over_ranks

EPS = 1e-4  # least standard deviation that skewness and kurtosis divide by


def moments(x: Tensor, valid: Tensor, *, all_ranks: bool = True) -> tuple[Tensor, ...]:
    """Return mean, variance, skewness and excess kurtosis of each channel, with gradient.

    The variance is the unbiased one, and skewness and kurtosis are of ``(x - mean)`` over its
    square root. The sums are taken around the mean, so that a large mean costs no digits.

    Args:
        x: ``(N, d)`` float32; fourth powers of its rows have to be finite.
        valid: ``(N,)`` bool; moments of no rows are those of a single zero.
        all_ranks: over the rows of all ranks, which all have to call; else over this rank's.

    Returns:
        Four tensors ``(d,)`` float32.
    """
    weight = valid.to(x.dtype)[:, None]
    count, total = weight.sum(), (x.detach() * weight).sum(0)
    if all_ranks:
        count, total = sum_over_ranks(count, total)
    n = count.clamp(min=1)
    center = total / n  # a constant: the first power below carries the gradient of the mean
    rest = (x - center) * weight
    powers = torch.stack([rest.pow(k).sum(0) for k in (1, 2, 3, 4)])
    first, second, third, fourth = (total_over_ranks(powers) if all_ranks else powers) / n
    variance = (second - first.square()) * n / (n - 1).clamp(min=1)
    fourth = fourth - 4 * first * third + 6 * first.square() * second - 3 * first.pow(4)
    third = third - 3 * first * second + 2 * first.pow(3)
    std = variance.clamp(min=EPS**2).sqrt()
    return center + first, variance, third / std.pow(3), fourth / std.pow(4) - 3
