"""A range coder on integers: any frequencies, 16-bit words, at most three bytes to end a stream.

Specification. The coder narrows an interval ``[low, low + range)`` of the 48-bit numbers, starting
with ``low = 0`` and ``range = 2**48``. A symbol is a slice ``[start, start + freq)`` of ``[0,
total)`` with ``freq >= 1`` and ``total <= 2**24``::

    r = range // total;  low = low + r * start;  range = r * freq
    while range < 2**32:  emit low >> 32;  low = (low mod 2**32) * 2**16;  range = range * 2**16

The emitted word may exceed 16 bits by a carry, which is added to the word before it once the stream
ends. The end: with the largest s of 40, 32, ..., 0 for which ``v = ceil(low / 2**s) * 2**s < low +
range``, the 48 bits of v are emitted as three words, words are written big-endian, and all zero
bytes at the end of the stream are dropped. A decoder reads zeros past the end.

The decoder holds ``code``, the 48 bits at its place in the stream minus ``low``::

    r = range // total;  slot = min(code // r, total - 1);  the symbol's slice holds the slot
    code = code - r * start;  range = r * freq
    while range < 2**32:  code = code * 2**16 + next word;  range = range * 2**16

``range`` is at least 2**32 before a symbol, so a 16-bit table costs under 2**-15 bits a symbol
above its ideal length. Symbols with ``freq == total`` are not coded at all.

Reference:
    Martin, Range encoding: an algorithm for removing redundancy from a digitised message, 1979.
    Differs from the paper: base 2**16 digits, deferred carries, shortest ending.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from tokenizers_vq.errors import BitstreamError

TOTAL_BITS = 16  # of every frequency table
MAX_TOTAL = 1 << 24
_TOP, _BOTTOM, _MASK = 48, 1 << 32, (1 << 32) - 1


def encode(slices: Iterable[tuple[int, int, int]]) -> bytes:
    """Return the stream of ``(start, freq, total)`` slices, in the order they are decoded."""
    low, width = 0, 1 << _TOP
    words: list[int] = []
    for start, freq, total in slices:
        if freq == total:
            continue
        step = width // total
        low += step * start
        width = step * freq
        while width < _BOTTOM:
            words.append(low >> 32)
            low = (low & _MASK) << 16
            width <<= 16
    last = _shortest(low, width)
    return _to_bytes([*words, last >> 32, (last >> 16) & 0xFFFF, last & 0xFFFF])


def _shortest(low: int, width: int) -> int:
    """Return the number in ``[low, low + width)`` that ends in the most zero bytes."""
    for shift in (40, 32, 24, 16, 8):
        value = -(-low >> shift) << shift
        if value < low + width:
            return value
    return low


def _to_bytes(words: list[int]) -> bytes:
    """Resolve the carries from the last word to the first, and drop the zero bytes at the end."""
    for i in range(len(words) - 1, 0, -1):
        words[i - 1] += words[i] >> 16
        words[i] &= 0xFFFF
    return b"".join(word.to_bytes(2, "big") for word in words).rstrip(b"\0")


class Decoder:
    """Reads symbols from a stream of ``encode``, in the same order.

    Args:
        data: the whole stream.
    """

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 2)
        self._words = [int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2)]
        self._words += [0] * (3 - len(self._words))
        self._next = 3
        first, second, third = self._words[:3]
        self._code = (first << 32) | (second << 16) | third
        self._width = 1 << _TOP

    def symbol(self, cumulative: Sequence[int]) -> int:
        """Return the next symbol of a table whose cumulative frequencies go from 0 to 2**16."""
        step = self._width >> TOTAL_BITS
        code = self._code
        slot = code // step
        symbol = bisect_right(cumulative, slot) - 1 if slot < 65536 else len(cumulative) - 2
        start = cumulative[symbol]
        self._code = code - step * start
        self._width = width = step * (cumulative[symbol + 1] - start)
        if width < _BOTTOM:
            self._refill()
        return symbol

    def uniform(self, total: int) -> int:
        """Return the next of ``total`` equally likely numbers, ``total <= 2**24``."""
        if total == 1:
            return 0
        step = self._width // total
        number = min(self._code // step, total - 1)
        self._code -= step * number
        self._width = step
        self._refill()
        return number

    def finish(self) -> None:
        """Check that no bytes follow the last symbol.

        Raises:
            BitstreamError: the stream holds more words than the symbols made.
        """
        if len(self._words) > self._next:
            raise BitstreamError(
                f"Decoder: expected {2 * self._next} bytes at most; got {2 * len(self._words)}. "
                "The file has trailing bytes; copy it again."
            )

    def _refill(self) -> None:
        while self._width < _BOTTOM:
            word = self._words[self._next] if self._next < len(self._words) else 0
            self._next += 1
            self._code = (self._code << 16) | word
            self._width <<= 16
