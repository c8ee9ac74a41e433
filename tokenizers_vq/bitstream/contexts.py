"""What its neighbours say about a symbol: two integer scores, linear in causal features.

Every symbol s of column k has two integer features: its rarity (code length in 1/16 bit without
context) and its value (its place in an ordered alphabet), both minus their mean. The *energy* of a
symbol to come is a weighted sum of the rarities, its *mean* a weighted sum of the values, over the
columns at the neighbouring positions of ``offsets`` and over the columns before it at its own
position. Positions outside the grid count as zero. Each score is cut into bins by thresholds; the
pair of bins chooses a frequency table.

Reference:
    Weinberger, Seroussi, Sapiro, The LOCO-I lossless image compression algorithm, 2000, section III
    (context quantisation). Differs from the paper: the context is a fitted linear form over all
    columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Scores = NDArray[np.int32]

PAD = 2  # the farthest neighbour
MAX_COLUMNS = (
    256  # more columns than this are coded without context: weights grow with their square
)
FULL_COLUMNS = 64  # more than this and only the two nearest neighbours are looked at


def offsets(rank: int, columns: int) -> tuple[tuple[int, ...], ...]:
    """Return the causal neighbours of a grid of ``rank`` axes in raster order, nearest first.

    Rank 0 has none, rank 1 the two before, rank 2 left, up, up-left, up-right, left-left, up-up;
    higher ranks those in the last two axes and one step back in every axis before.
    """
    if rank == 0 or columns > MAX_COLUMNS:
        return ()
    if rank == 1:
        return ((-1,), (-2,))
    lead = (0,) * (rank - 2)
    plane = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0)]
    near: list[tuple[int, ...]] = [(*lead, *step) for step in plane]
    back = [tuple(-1 if axis == a else 0 for axis in range(rank)) for a in range(rank - 2)]
    near = near[:2] + back + near[2:]
    return tuple(near[: 2 + len(back)] if columns > FULL_COLUMNS else near)


def lookup(features: Scores, symbols: Ints) -> Scores:
    """Return the features ``(2, ..., K)`` of ``symbols (..., K)`` from the table ``(2, K, C)``."""
    return features[:, np.arange(symbols.shape[-1]), symbols]


def neighbours(fields: Scores, steps: Sequence[tuple[int, ...]]) -> Iterator[Scores]:
    """Yield ``fields (2, *grid, K)`` moved by every step, zeros coming in from outside."""
    grid = fields.shape[1:-1]
    padded = np.pad(fields, [(0, 0), *[(PAD, PAD)] * len(grid), (0, 0)])
    for step in steps:
        window = [slice(PAD + d, PAD + d + n) for d, n in zip(step, grid, strict=True)]
        yield padded[(slice(None), *window)]


def scores(fields: Scores, weights: NDArray[np.int8]) -> Scores:
    """Return the energies and means of all symbols of an item whose symbols are all known.

    Args:
        fields: ``(2, *grid, K)`` features of the symbols.
        weights: ``(2, 1 + R, K, K)``: own position first, then the R neighbours; from column, to
            column. Empty when the columns are coded without context.

    Returns:
        ``(2, *grid, K)`` int32.
    """
    if not weights.size:
        return np.zeros_like(fields)
    wide = weights.astype(np.int32)
    columns = fields.shape[-1]
    steps = offsets(fields.ndim - 2, columns)
    out = np.matmul(fields.reshape(2, -1, columns), np.triu(wide[:, 0], 1))
    for r, moved in enumerate(neighbours(fields, steps)):
        out += np.matmul(moved.reshape(2, -1, columns), wide[:, 1 + r])
    shaped: Scores = out.reshape(fields.shape)
    return shaped
