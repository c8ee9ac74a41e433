"""Tables of levels: each channel has its own few numbers that it can be rounded to."""

import torch
from torch import Tensor


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
