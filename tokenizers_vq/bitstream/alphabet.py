"""The alphabet of one column: small ones coded as they are, large ones as class and place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenizers_vq.bitstream.tables import Bytes, Ints

LARGE = 256  # alphabets above this are coded in classes
LARGEST = 1 << 24  # the range coder's largest total


class Alphabet:
    """Splits symbols into a class and a place in the class, and back.

    Args:
        size: number of symbols.
        classes: ``(size,)`` uint8 class of every symbol of a large alphabet; None for a small one,
            whose symbols are their own classes.

    Attributes:
        members: ``(classes,)`` int64 size of each class; empty for a small alphabet.
    """

    def __init__(self, size: int, classes: Bytes | None) -> None:
        self.size = size
        self._classes = classes
        self.members: Ints = np.zeros(0, np.int64)
        if classes is not None:
            self.members = np.bincount(classes).astype(np.int64)
            self._starts = np.cumsum(self.members) - self.members
            self._order = np.argsort(classes, kind="stable")  # by class, then by symbol
            self._places = np.empty(size, np.int64)
            self._places[self._order] = np.arange(size) - np.repeat(self._starts, self.members)

    @staticmethod
    def is_large(size: int) -> bool:
        """Whether an alphabet of ``size`` symbols is coded in classes."""
        return size > LARGE

    def split(self, symbols: Ints) -> tuple[Ints, Ints]:
        """Return the classes and the places of ``symbols``."""
        if self._classes is None:
            return symbols, np.zeros_like(symbols)
        return self._classes[symbols].astype(np.int64), self._places[symbols]

    def join(self, classes: Ints, places: Ints) -> Ints:
        """Return the symbols: the inverse of ``split``."""
        if self._classes is None:
            return classes
        symbols: NDArray[np.int64] = self._order[self._starts[classes] + places]
        return symbols

    def features(self, lengths: Bytes) -> tuple[Ints, Ints]:
        """Return rarity (1/16 bit) and value of every class, from its code lengths ``(C,)``.

        The rarity of a symbol in a class of n is the class's own plus ``16 * floor(log2 n)``;
        symbols of a large alphabet have no order, so their value is 0.
        """
        rarity = lengths.astype(np.int64)
        if self._classes is None:
            return rarity, np.arange(len(lengths))
        spread = np.array([16 * (int(n).bit_length() - 1) for n in self.members], np.int64)
        return rarity + spread, np.zeros(len(lengths), np.int64)
