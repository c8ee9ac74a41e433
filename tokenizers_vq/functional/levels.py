"""Tables of levels: each channel has its own few numbers that it can be rounded to."""

import math

import torch
from torch import Tensor

CLIP = 3.0  # standard deviations from the mean to the outer edges of gaussian_levels


@torch.no_grad()
def nearest_levels(u: Tensor, table: Tensor) -> Tensor:
    """Return which level of its channel is nearest to each number; the lower of equally near ones.

    Compares with the middles between sorted levels, so that a channel costs ``log L`` and no
    ``(N, d, L)`` tensor exists.

    Args:
        u: ``(N, d)`` float32, finite.
        table: ``(d, L)`` float32, in any order; infinite where a channel has fewer levels.

    Returns:
        ``(N, d)`` int64, columns of ``table``.
    """
    levels, order = torch.sort(table, dim=1, stable=True)
    # Half of each: a sum of two large ones would overflow.
    middles = levels[:, :-1] / 2 + levels[:, 1:] / 2
    rank = torch.searchsorted(middles.contiguous(), u.T.contiguous())
    return torch.gather(order, 1, rank).T


def pick_levels(table: Tensor, digits: Tensor) -> Tensor:
    """Return ``table[c, digits[n, c]]`` as ``(N, d)``, with gradient to ``table (d, L)``.

    Args:
        table: ``(d, L)``.
        digits: ``(N, d)`` int64.
    """
    return torch.gather(table.T, 0, digits)


def gaussian_levels(count: int) -> Tensor:
    """Return levels ``(count,)`` float64 that a standard normal variable uses about equally often.

    Each is the mean of the variable within one of ``count`` equally probable bins; the outer edges
    are at ``-CLIP`` and ``+CLIP``.

    Reference:
        Wang et al., Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation,
        2025, https://arxiv.org/abs/2503.16430.
    """
    inner: Tensor = torch.special.ndtri(torch.arange(1, count, dtype=torch.float64) / count)
    clips = torch.tensor([-CLIP, CLIP], dtype=torch.float64)
    edges = torch.cat([clips[:1], inner, clips[1:]])
    density = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi)
    levels: Tensor = -density.diff() / torch.special.ndtr(edges).diff()
    return (levels - levels.flip(0)) / 2  # symmetric to the last bit, so that zero is a tie


@torch.no_grad()
def lloyd(x: Tensor, count: int, iterations: int = 100) -> Tensor:
    """Return levels of least mean squared error on ``x``, by Lloyd's algorithm per channel.

    They start at quantiles, those which would be best for many levels of a normal variable: as
    dense as the cube root of its density, so farther out than equally probable bins.

    Args:
        x: ``(N, d)`` float32, finite, N at least 1.
        count: number of levels L.
        iterations: how often levels move to the mean of what is nearest to them; one that nothing
            is nearest to stays.

    Returns:
        ``(d, L)`` float64, ascending.

    Reference:
        Lloyd, Least Squares Quantization in PCM, 1982, https://doi.org/10.1109/TIT.1982.1056489,
        method I; Panter and Dite, Quantization Distortion in Pulse-Count Modulation with
        Nonuniform Spacing of Levels, 1951, https://doi.org/10.1109/JRPROC.1951.230419.
    """
    values = torch.sort(x.T.double(), dim=1).values.contiguous()
    total = torch.nn.functional.pad(values.cumsum(1), (1, 0))
    middle = (torch.arange(count, dtype=torch.float64, device=x.device) + 0.5) / count
    part = torch.special.ndtr(math.sqrt(3) * torch.special.ndtri(middle))
    table = values[:, (part * (values.shape[1] - 1)).round().long()]
    first = torch.zeros_like(table[:, :1]).long()
    last = torch.full_like(first, values.shape[1])
    for _ in range(iterations):
        middles = (table[:, :-1] + table[:, 1:]) / 2
        cut = torch.cat([first, torch.searchsorted(values, middles, right=True), last], dim=1)
        counts, sums = cut.diff(), torch.gather(total, 1, cut).diff()
        table = torch.where(counts > 0, sums / counts.clamp(min=1), table)
    return table
