"""Fixed-length coding of mixed-radix digits: log2 of the product of the sizes, not ceil per symbol.

Format. The symbols s_0, s_1, ... of a file have the radices r_0, r_1, ... (the codebook sizes,
repeated for every position). They are cut into blocks of ``BLOCK`` symbols. A block of n symbols is
the integer ``s_0 + s_1 r_0 + s_2 r_0 r_1 + ...`` (first symbol least significant), written
little-endian in the fewest bytes that hold ``r_0 r_1 ... r_(n-1) - 1``. A 64,000-code token costs
log2(64000) = 15.97 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokenizers_vq.errors import BitstreamError

BLOCK = 4096  # symbols; one block wastes under a byte, and its big-integer work stays below 10 ms

Ints = NDArray[np.object_]


def packed_size(count: int, sizes: Sequence[int]) -> int:
    """Return the number of bytes of ``count`` symbols whose radices repeat ``sizes``."""
    total, lengths = 0, {}
    for start in range(0, count, BLOCK):
        key = (start % len(sizes), min(BLOCK, count - start))
        if key not in lengths:
            lengths[key] = _byte_length(_levels(_radices(sizes, *key))[-1])
        total += lengths[key]
    return total


def pack(symbols: NDArray[np.int64], sizes: Sequence[int]) -> bytes:
    """Pack flat int64 ``symbols (n,)`` whose radices repeat ``sizes``; all must be in range."""
    out = []
    for start in range(0, len(symbols), BLOCK):
        block = symbols[start : start + BLOCK].astype(object)
        levels = _levels(_radices(sizes, start % len(sizes), len(block)))
        for radices in levels[:-1]:
            block, low = _even(block, 0), _even(radices, 1)[0::2]
            block = block[0::2] + block[1::2] * low
        out.append(int(block[0]).to_bytes(_byte_length(levels[-1]), "little"))
    return b"".join(out)


def unpack(data: bytes, count: int, sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return the ``count`` symbols of ``data`` as int64 ``(count,)``.

    Raises:
        BitstreamError: ``data`` has another length, or holds a number no symbols make.
    """
    expected = packed_size(count, sizes)
    if len(data) != expected:
        raise BitstreamError(
            f"unpack: expected {expected} bytes for {count} symbols; got {len(data)}. "
            "The file is damaged; copy it again."
        )
    out, at = np.empty(count, np.int64), 0
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        levels = _levels(_radices(sizes, start % len(sizes), size))
        end = at + _byte_length(levels[-1])
        out[start : start + size] = _split(int.from_bytes(data[at:end], "little"), levels)
        at = end
    return out


def _split(value: int, levels: list[Ints]) -> Ints:
    """Undo the pairing: from one number to all symbols, one level of the radix tree at a time."""
    if value >= int(levels[-1][0]):
        raise BitstreamError(
            "unpack: expected a block below the product of its codebook sizes; got a larger one. "
            "The file was not written by this library; encode the signal again."
        )
    block = np.array([value], dtype=object)
    for radices in reversed(levels[:-1]):
        low = _even(radices, 1)[0::2]
        pairs = np.empty(2 * len(low), dtype=object)
        pairs[0::2], pairs[1::2] = block % low, block // low
        block = pairs[: len(radices)]
    return block


def _radices(sizes: Sequence[int], phase: int, count: int) -> Ints:
    """Return ``count`` radices of the repeated ``sizes``, starting at codebook ``phase``."""
    return np.array([int(size) for size in sizes], dtype=object)[
        (np.arange(count) + phase) % len(sizes)
    ]


def _levels(radices: Ints) -> list[Ints]:
    """Return the tree of products: the radices, products of pairs, ..., the product of all."""
    levels = [radices]
    while len(levels[-1]) > 1:
        row = _even(levels[-1], 1)
        levels.append(row[0::2] * row[1::2])
    return levels


def _even(row: Ints, filler: int) -> Ints:
    """Append ``filler`` when ``row`` has an odd length."""
    return row if len(row) % 2 == 0 else np.append(row, filler)


def _byte_length(top: Ints) -> int:
    return (int(top[0] - 1).bit_length() + 7) // 8
