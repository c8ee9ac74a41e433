"""Orders of codes that come at several rates."""

from collections.abc import Sequence

import torch
from torch import Tensor


def depth_first(lengths: Sequence[int]) -> Tensor:
    """Return the places ``(L,)`` int64 of codes, ordered by when they begin, slow ones first.

    Taking codes that lie one rate after the other at these places makes a sequence in which every
    code comes right before the faster codes of its time.

    Args:
        lengths: codes of each rate for one and the same signal, ascending.

    Example:
        >>> depth_first([1, 2, 4])
        tensor([0, 1, 3, 4, 2, 5, 6])
    """
    finest = max(lengths)
    starts = [torch.arange(length) * finest // length for length in lengths]
    return torch.cat(starts).argsort(stable=True)
