"""Integer frequency tables, and the rarity classes that make a large alphabet a small one.

A table is stored as one byte per symbol, its code length in 1/16 bit. ``frequencies`` turns the
bytes into integers that sum to 2**16 by integer arithmetic alone, so every machine derives the same
table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenizers_vq.bitstream.range_coder import TOTAL_BITS

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

# round(2**(24 - i / 16)): spelled out, so that no machine computes a power
_EXP2 = np.array(
    [
        16777216, 16065917, 15384775, 14732511, 14107901, 13509772, 12937002, 12388516,
        11863283, 11360319, 10878679, 10417458, 9975792, 9552851, 9147842, 8760003,
    ],
    np.int64,
)  # fmt: skip


def frequencies(lengths: Bytes) -> Ints:
    """Return the integer tables of code lengths.

    Every symbol gets ``raw = EXP2[q mod 16] >> (q div 16)`` with ``EXP2[i] = round(2**(24 -
    i/16))``, then ``max(1, raw * 2**16 // sum(raw))``; what is missing to 2**16 is added to the
    first largest symbol.

    Args:
        lengths: ``(cells, C)`` uint8 in 1/16 bit, C at most 256.

    Returns:
        ``(cells, C)`` int64, every entry at least 1, every row summing to 2**16.
    """
    raw = _EXP2[lengths & 15] >> (lengths >> 4).astype(np.int64)
    freq: Ints = np.maximum((raw << TOTAL_BITS) // raw.sum(1, keepdims=True), 1)
    best = freq.argmax(1)
    freq[np.arange(len(freq)), best] += (1 << TOTAL_BITS) - freq.sum(1)
    return freq


def cumulative(freq: Ints) -> Ints:
    """Return ``(cells, C + 1)`` running sums that start with 0 and end with 2**16."""
    return np.concatenate([np.zeros((len(freq), 1), np.int64), freq.cumsum(1)], axis=1)


def code_lengths(probabilities: NDArray[np.float64]) -> Bytes:
    """Return uint8 code lengths in 1/16 bit of ``probabilities (cells, C)``; fitting only."""
    return np.clip(np.round(-16 * np.log2(probabilities)), 0, 255).astype(np.uint8)


def rarity_classes(items: list[Ints], size: int) -> tuple[Bytes, list[Bytes]]:
    """Sort the symbols of a large alphabet into classes by how often they were seen.

    A symbol in item i is given the class it would have had without item i. So the classes' own
    statistics say how often an unseen or rare symbol turns up in a new item: the leave-one-out form
    of Good-Turing.

    Args:
        items: the symbols ``(n_i,)`` of each item.
        size: the size of the alphabet.

    Returns:
        The class of every symbol ``(size,)``, and each item's classes ``(n_i,)``.

    Reference:
        Good, The population frequencies of species and the estimation of population parameters,
        1953.
    """
    counts = np.zeros(size, np.int64)
    for item in items:
        counts += np.bincount(item, minlength=size)
    levels = _count_level(counts)
    present = np.unique(levels)
    left_out = []
    for item in items:
        symbols, place, own = np.unique(item, return_inverse=True, return_counts=True)
        rest = _count_level(counts[symbols] - own)
        nearest = np.maximum(np.searchsorted(present, rest, side="right") - 1, 0)
        left_out.append(nearest.astype(np.uint8)[place.reshape(-1)])
    return np.searchsorted(present, levels).astype(np.uint8), left_out


def _count_level(counts: Ints) -> Ints:
    """Return 0, 1, 2, 3 for these counts, half octaves above."""
    octaves = np.round(2 * np.log2(np.maximum(counts, 1)))
    return np.where(counts < 4, counts, octaves).astype(np.int64)
