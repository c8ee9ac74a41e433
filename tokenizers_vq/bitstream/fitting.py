"""Fitting of a count prior: regressions, quantile bins, smoothed tables; floats live only here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokenizers_vq.bitstream.contexts import Ints, Scores, lookup, neighbours, offsets, scores
from tokenizers_vq.bitstream.tables import Bytes, code_lengths

Floats = NDArray[np.float64]

SHAPES = (
    (1, 1),
    (16, 1),
    (1, 16),
    (12, 8),
    (6, 16),
)  # bins of energy x bins of mean to choose from
RIDGE = 50.0  # tokens' worth of evidence against every weight
PULL = 32.0  # counts that a cell borrows from the table above it


def order0(symbols: Ints, size: int) -> Bytes:
    """Return the code lengths ``(1, size)`` of ``symbols (n,)`` without context."""
    counts = np.bincount(symbols, minlength=size) + 0.5
    return code_lengths(counts[None] / counts.sum())


def fit_weights(items: Sequence[Ints], features: Scores) -> NDArray[np.int8]:
    """Return int8 weights ``(2, 1 + R, K, K)`` that predict features from the neighbours' own.

    One ridge regression per score and column; the columns are scaled to int8, since quantile bins
    do not care for the scale of a score.

    Args:
        items: symbols ``(*grid, K)`` of each item.
        features: ``(2, K, C)`` rarity and value of every symbol.
    """
    columns = items[0].shape[-1]
    relations = len(offsets(items[0].ndim - 1, columns))
    grams, tokens = _grams(items, features, relations)
    weights = np.zeros((2, (1 + relations) * columns, columns))
    for field in range(2):
        gram = grams[field] + np.diag(RIDGE * np.diag(grams[field]) / max(tokens, 1) + 1e-6)
        for k in range(columns):
            known = [*range(k), *range(columns, (1 + relations) * columns)]
            target = grams[field][known, k]
            weights[field, known, k] = np.linalg.solve(gram[np.ix_(known, known)], target)
    largest = np.abs(weights).max(1, keepdims=True)
    whole = np.round(weights * (127 / np.maximum(largest, 1e-12)))
    shaped: NDArray[np.int8] = whole.astype(np.int8).reshape(2, 1 + relations, columns, columns)
    return shaped


def _grams(items: Sequence[Ints], features: Scores, relations: int) -> tuple[Floats, int]:
    """Return the second moments ``(2, F, F)`` of own and neighbouring features, and the tokens."""
    columns = items[0].shape[-1]
    width = (1 + relations) * columns
    grams, tokens = np.zeros((2, width, width)), 0
    for item in items:
        fields = lookup(features, item)
        moved = neighbours(fields, offsets(item.ndim - 1, columns))
        parts = [part.reshape(2, -1, columns) for part in (fields, *moved)]
        design = np.concatenate(parts, axis=2).astype(np.float64)  # (2, n, F)
        grams += design.transpose(0, 2, 1) @ design
        tokens += design.shape[1]
    return grams, tokens


def all_scores(items: Sequence[Ints], features: Scores, weights: NDArray[np.int8]) -> Scores:
    """Return energies and means ``(2, n, K)`` of all positions, one item after the other."""
    columns = items[0].shape[-1]
    found = [scores(lookup(features, item), weights).reshape(2, -1, columns) for item in items]
    return np.concatenate(found, axis=1)


def fit_column(
    symbols: Ints, energy: Scores, mean: Scores, lengths: Bytes
) -> tuple[list[int], list[int], Bytes]:
    """Choose the bins of one column by two-fold code length, then count its tables.

    Args:
        symbols: ``(n,)``.
        energy: ``(n,)`` scores.
        mean: ``(n,)`` scores.
        lengths: ``(1, C)`` code lengths without context.

    Returns:
        The cuts of the energy, the cuts of the mean, and code lengths ``(cells, C)``.
    """
    best, chosen = np.inf, SHAPES[0]
    half = np.arange(len(symbols)) < len(symbols) // 2
    for shape in SHAPES:
        cuts = (_cuts(energy, shape[0]), _cuts(mean, shape[1]))
        cells = cell_of(energy, mean, cuts)
        size = 0.0
        for fold in (half, ~half):
            tables = _tables(symbols[fold], cells[fold], cuts, lengths)
            size += float(tables[cells[~fold], symbols[~fold]].sum(dtype=np.int64))
        if size < best:
            best, chosen = size, shape
    cuts = (_cuts(energy, chosen[0]), _cuts(mean, chosen[1]))
    return *cuts, _tables(symbols, cell_of(energy, mean, cuts), cuts, lengths)


def _cuts(values: Scores, bins: int) -> list[int]:
    """Return ascending integers that cut ``values`` into at most ``bins`` parts of equal count."""
    if bins == 1 or not len(values):
        return []
    cuts = np.unique(np.quantile(values, np.arange(1, bins) / bins, method="nearest"))
    return [int(cut) for cut in cuts if cut > values.min()]


def cell_of(energy: Scores, mean: Scores, cuts: tuple[list[int], list[int]]) -> Ints:
    """Return the cell of every symbol; a score equal to a cut belongs to the bin above it."""
    upper = np.searchsorted(np.array(cuts[0], np.int32), energy, side="right")
    return upper * (len(cuts[1]) + 1) + np.searchsorted(
        np.array(cuts[1], np.int32), mean, side="right"
    )


def _tables(symbols: Ints, cells: Ints, cuts: tuple[list[int], list[int]], lengths: Bytes) -> Bytes:
    """Count the cells; energy bins borrow from the order-0 table, cells from their energy bin."""
    rows, inner = len(cuts[0]) + 1, len(cuts[1]) + 1
    size = lengths.shape[1]
    counts = np.bincount(cells * size + symbols, minlength=rows * inner * size).astype(np.float64)
    counts = counts.reshape(rows, inner, size)
    base = np.exp2(-lengths.astype(np.float64) / 16)
    outer = _smooth(counts.sum(1), base / base.sum())
    return code_lengths(_smooth(counts, outer[:, None]).reshape(-1, size))


def _smooth(counts: Floats, above: Floats) -> Floats:
    """Return probabilities of ``counts (..., C)`` that borrow ``PULL`` counts from ``above``."""
    smoothed: Floats = (counts + PULL * above) / (counts.sum(-1, keepdims=True) + PULL)
    return smoothed
