"""Positions without a token, index -1, as runs: tokenizers that choose their number leave some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokenizers_vq.bitstream.tables import Ints
from tokenizers_vq.errors import BitstreamError

Bools = NDArray[np.bool_]


def present_of(indices: Ints) -> Bools:
    """Return which positions ``(B * positions,)`` of ``indices (B, *grid, K)`` have a token.

    Raises:
        BitstreamError: a position has a token in some of its codebooks only.
    """
    rows = indices.reshape(-1, indices.shape[-1]) >= 0
    present: Bools = np.logical_and.reduce(rows, axis=-1)
    if (np.logical_or.reduce(rows, axis=-1) != present).any():
        raise BitstreamError(
            "to_bytes: expected -1 in all codebooks of a position or in none; got some (a prefix "
            "of a residual head?). Write only what decode needs."
        )
    return present


def runs_of(present: Bools) -> tuple[int, ...]:
    """Return the lengths of runs, the first of them present; none if nothing is missing."""
    if present.all():
        return ()
    edges = np.flatnonzero(np.diff(present)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(present)]]))
    return (*([] if present[0] else [0]), *lengths.tolist())


def filled(runs: Sequence[int]) -> Bools:
    """Return which positions ``(sum(runs),)`` have a token: the inverse of ``runs_of``."""
    return np.repeat(np.arange(len(runs)) % 2 == 0, runs)
