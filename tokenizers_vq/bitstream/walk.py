"""Decoding of one item, position by position: the sequential twin of ``contexts.scores``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenizers_vq.bitstream.contexts import PAD, Ints, Scores, lookup, offsets
from tokenizers_vq.bitstream.range_coder import Decoder

Near = list[tuple[int, Scores]]


@dataclass(frozen=True)
class Column:
    """What the decoder knows of one column.

    Attributes:
        energy: ascending cuts of the energy.
        mean: ascending cuts of the mean.
        tables: cumulative frequencies of every cell, ``energy bin * (len(mean) + 1) + mean bin``.
        members: size of every rarity class of a large alphabet; empty when the symbols are coded as
            such.
    """

    energy: list[int]
    mean: list[int]
    tables: list[list[int]]
    members: list[int]


class Walk:
    """Decodes items one after the other from one stream.

    Args:
        columns: the K columns.
        features: ``(2, K, C)`` rarity and value of every symbol, as ``contexts.lookup`` takes them.
        weights: ``(2, 1 + R, K, K)`` int8 as in ``contexts.scores``.
    """

    def __init__(
        self, columns: Sequence[Column], features: Scores, weights: NDArray[np.int8]
    ) -> None:
        self._columns = columns
        self._features = features
        self._weights = weights.astype(np.int32)
        self._moves: list[dict[int, Scores]] = [{} for _ in columns]

    def item(self, decoder: Decoder, grid: tuple[int, ...]) -> tuple[Ints, Ints]:
        """Return the symbols (or classes) and the places in their classes, both ``(*grid, K)``."""
        count = len(self._columns)
        around = offsets(len(grid), count) if self._weights.size else ()
        steps = [(step, self._weights[:, 1 + r]) for r, step in enumerate(around)]
        far = [(step, w) for step, w in steps if any(step[:-1])]
        near = [(step[-1], w) for step, w in steps if not any(step[:-1])]
        grid = grid or (1,)
        out = np.zeros((2, *grid, count), np.int64)
        fields = np.zeros((2, *[n + 2 * PAD for n in grid], count), np.int32)
        for place in np.ndindex(grid[:-1]):
            base = np.zeros((2, grid[-1], count), np.int32)
            for step, w in far:
                source = [PAD + p + d for p, d in zip(place, step[:-1], strict=True)]
                start = PAD + step[-1]
                base += np.matmul(fields[(slice(None), *source)][:, start : start + grid[-1]], w)
            row = fields[(slice(None), *[PAD + p for p in place])]
            self._row(decoder, base, row, near, out[(slice(None), *place)])
        return out[0], out[1]

    def _row(self, decoder: Decoder, base: Scores, row: Scores, near: Near, out: Ints) -> None:
        """Decode one row into ``out (2, w, K)`` and its features into ``row``."""
        for x in range(base.shape[1]):
            at = base[:, x]  # (2, K)
            for back, w in near:
                at = at + np.matmul(row[:, PAD + x + back, None], w)[:, 0]
            symbols, places = self._position(decoder, at.reshape(-1))
            out[0, x], out[1, x] = symbols, places
            row[:, PAD + x] = lookup(self._features, out[0, x])

    def _position(self, decoder: Decoder, at: Scores) -> tuple[list[int], list[int]]:
        """Decode the K symbols of a position whose scores so far are ``at (2 K)``."""
        count = len(self._columns)
        symbols, places = [], []
        for k, column in enumerate(self._columns):
            cell = 0
            if column.energy:
                cell = bisect_right(column.energy, at.item(k))
            if column.mean:
                cell *= len(column.mean) + 1
                cell += bisect_right(column.mean, at.item(count + k))
            table = column.tables[cell]
            symbol = decoder.symbol(table) if len(table) > 2 else 0
            symbols.append(symbol)
            places.append(decoder.uniform(column.members[symbol]) if column.members else 0)
            move = self._moves[k].get(symbol)
            if move is None:
                move = self._moves[k][symbol] = self._move(k, symbol)
            at += move
        return symbols, places

    def _move(self, column: int, symbol: int) -> Scores:
        """Return what one decoded symbol adds to the scores ``(2 K)`` of its own position."""
        if not self._weights.size:
            return np.zeros(2 * len(self._columns), np.int32)
        own: Scores = self._weights[:, 0, column] * self._features[:, column, symbol, None]
        own[:, : column + 1] = 0
        return own.reshape(-1)
