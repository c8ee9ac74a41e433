"""Count priors: what a tokenizer's indices look like, as integer tables for the range coder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenizers_vq.bitstream import fitting, range_coder, storage
from tokenizers_vq.bitstream.alphabet import Alphabet
from tokenizers_vq.bitstream.contexts import MAX_COLUMNS, Ints, Scores, lookup, scores
from tokenizers_vq.bitstream.digits import check_items, check_radices, join_digits, split_digits
from tokenizers_vq.bitstream.storage import PriorData
from tokenizers_vq.bitstream.tables import cumulative, frequencies, rarity_classes
from tokenizers_vq.bitstream.walk import Column, Walk
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.files import write_atomically


class CountPrior:
    """Context-dependent integer frequency tables for the indices of one tokenizer.

    Each index is split into digits (one by default), each digit of a large alphabet into a rarity
    class and a place among the symbols of the class. Two integer scores (``contexts``) choose the
    table that codes the symbol or class; the place is coded as one of equally likely. Every legal
    index can be coded.

    Args:
        data: the tables; made by ``fit`` or ``load``.

    Attributes:
        codebook_sizes: the K codebook sizes.
        rank: number of grid axes the contexts were fitted for.
        model: ``name@hash`` of the tokenizer the indices came from.
        sha256: hex digest of everything that decides how a file is coded, and of ``model``.
    """

    def __init__(self, data: PriorData) -> None:
        self._data = data
        self.codebook_sizes = data.codebook_sizes
        self.rank = data.rank
        self.model = data.model
        self.alphabets = [
            Alphabet(size, data.classes.get(k)) for k, size in enumerate(data.columns)
        ]
        self._cumulative = [cumulative(frequencies(cells)) for cells in data.cells]
        self._features = _features(data, self.alphabets)
        self._leading: dict[int, CountPrior] = {len(self.codebook_sizes): self}

    @classmethod
    def fit(
        cls,
        items: Sequence[ArrayLike],
        codebook_sizes: Sequence[int],
        digits: Sequence[Sequence[int]] | None = None,
        model: str = "",
    ) -> CountPrior:
        """Fit a prior to the indices of training items. Never fit on files that are then measured.

        Args:
            items: indices ``(*grid, K)`` of each item, integers; grids of one rank and any size.
            codebook_sizes: the K codebook sizes, at most 2**24 unless split by ``digits``.
            digits: for every codebook, the radices its index is split into, least significant
                first, e.g. the levels of FSQ or ``(2,) * 18`` for LFQ; their product is the
                codebook size.
            model: ``name@hash`` of the tokenizer.

        Raises:
            ConfigError: no items, sizes that cannot be coded, or digits that do not multiply to the
                sizes.
            ShapeError: items of differing rank, another K, or an index outside its codebook.
        """
        sizes = tuple(int(size) for size in codebook_sizes)
        radices = tuple(tuple(int(r) for r in d) for d in digits or [(size,) for size in sizes])
        check_radices(sizes, radices)
        columns = [split_digits(item, radices) for item in check_items(items, sizes)]
        classes: dict[int, NDArray[np.uint8]] = {}
        for k, radix in enumerate(r for d in radices for r in d):
            if Alphabet.is_large(radix):
                classes[k], found = rarity_classes([c[..., k].reshape(-1) for c in columns], radix)
                for column, symbols in zip(columns, found, strict=True):
                    column[..., k] = symbols.reshape(column.shape[:-1])
        return cls(_fit(PriorData(sizes, radices, columns[0].ndim - 1, model, classes), columns))

    @classmethod
    def load(cls, path: str | Path) -> CountPrior:
        """Read a prior that ``save`` wrote.

        Raises:
            BitstreamError: the file is missing, damaged, or not a prior.
        """
        return cls(storage.load(path))

    def for_model(self, model: str) -> CountPrior:
        """Return the same tables for another ``name@hash``: of the weights as they were saved."""
        return CountPrior(replace(self._data, model=model))

    def leading(self, count: int) -> CountPrior:
        """Return the prior of the first ``count`` codebooks; what later ones said is left out.

        Raises:
            ConfigError: there are not so many.
        """
        if not 1 <= count <= len(self.codebook_sizes):
            raise ConfigError(
                f"CountPrior.leading: expected a count of 1..{len(self.codebook_sizes)}; got "
                f"{count}. A prior has no tables of other codebooks."
            )
        if count not in self._leading:
            self._leading[count] = CountPrior(storage.leading(self._data, count))
        return self._leading[count]

    def to_bytes(self) -> bytes:
        """Return a safetensors file of integer tables."""
        return storage.to_bytes(self._data)

    def save(self, path: str | Path) -> int:
        """Write ``to_bytes`` atomically; return its size in bytes."""
        blob = self.to_bytes()
        write_atomically(Path(path), blob)
        return len(blob)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the tables."""
        return storage.digest(self._data)

    def bits(self, indices: ArrayLike) -> float:
        """Return the ideal code length in bits of one item's ``indices (*grid, K)``."""
        freq, total = self._slices(np.asarray(indices))[1:]
        return float(np.log2(total / freq).sum())

    def encode(self, indices: Ints) -> bytes:
        """Return the stream of ``indices (B, *grid, K)``, items one after the other."""
        slices: list[tuple[int, int, int]] = []
        for item in indices:
            slices.extend(zip(*(part.tolist() for part in self._slices(item)), strict=True))
        return range_coder.encode(slices)

    def decode(self, data: bytes, shape: tuple[int, ...]) -> Ints:
        """Return the indices ``(B, *grid, K)`` of a stream of ``encode``.

        Raises:
            BitstreamError: bytes follow the last symbol.
        """
        decoder = range_coder.Decoder(data)
        walk = Walk(self._walk_columns, self._features, self._data.weights)
        symbols = np.zeros((*shape[:-1], len(self.alphabets)), np.int64)
        if symbols.size:
            for item in symbols:
                found, places = walk.item(decoder, shape[1:-1])
                for k, alphabet in enumerate(self.alphabets):
                    item[..., k] = alphabet.join(found[..., k], places[..., k]).reshape(shape[1:-1])
        decoder.finish()
        return join_digits(symbols, self._data.digits)

    @cached_property
    def _walk_columns(self) -> list[Column]:
        parts = zip(self._data.cuts, self._cumulative, self.alphabets, strict=True)
        return [Column(*cuts, tables.tolist(), a.members.tolist()) for cuts, tables, a in parts]

    def _slices(self, indices: Ints) -> tuple[Ints, Ints, Ints]:
        """Return start, frequency and total of everything coded for one item, in coding order."""
        symbols = split_digits(indices, self._data.digits)
        pairs = [a.split(symbols[..., k]) for k, a in enumerate(self.alphabets)]
        coded = np.stack([pair[0] for pair in pairs], axis=-1)
        found = scores(lookup(self._features, coded), self._data.weights)
        steps: list[Ints] = []
        for k, alphabet in enumerate(self.alphabets):
            energy, mean = found[0, ..., k].reshape(-1), found[1, ..., k].reshape(-1)
            cells = fitting.cell_of(energy, mean, self._data.cuts[k])
            symbol, place = pairs[k][0].reshape(-1), pairs[k][1].reshape(-1)
            start = self._cumulative[k][cells, symbol]
            freq = self._cumulative[k][cells, symbol + 1] - start
            steps.append(np.stack([start, freq, np.full_like(start, 65536)]))
            if len(alphabet.members):
                steps.append(np.stack([place, np.ones_like(place), alphabet.members[symbol]]))
        start, freq, total = np.stack(steps, axis=-1).reshape(3, -1)
        return start, freq, total


def _fit(data: PriorData, items: list[Ints]) -> PriorData:
    """Fill the tables of ``data`` from the symbols (or classes) ``(*grid, K')`` of the items."""
    flat = np.concatenate([item.reshape(-1, item.shape[-1]) for item in items])
    sizes = [
        int(data.classes[k].max()) + 1 if k in data.classes else n
        for k, n in enumerate(data.columns)
    ]
    data.order0 = [fitting.order0(flat[:, k], size) for k, size in enumerate(sizes)]
    alphabets = [Alphabet(size, data.classes.get(k)) for k, size in enumerate(data.columns)]
    features = _features(data, alphabets)
    if len(sizes) <= MAX_COLUMNS:
        data.weights = fitting.fit_weights(items, features)
    found = fitting.all_scores(items, features, data.weights)
    for k in range(len(sizes)):
        *cuts, cells = fitting.fit_column(
            flat[:, k], found[0, :, k], found[1, :, k], data.order0[k]
        )
        data.cuts.append((cuts[0], cuts[1]))
        data.cells.append(cells)
    return data


def _features(data: PriorData, alphabets: Sequence[Alphabet]) -> Scores:
    """Return rarity and value of every symbol minus their means: ``(2, K, C)`` int32."""
    widest = max(lengths.shape[1] for lengths in data.order0)
    table = np.zeros((2, len(alphabets), widest), np.int32)
    for k, (lengths, alphabet) in enumerate(zip(data.order0, alphabets, strict=True)):
        freq = frequencies(lengths)[0]
        for field, feature in enumerate(alphabet.features(lengths[0])):
            centre = int((freq * feature).sum()) >> range_coder.TOTAL_BITS
            table[field, k, : len(feature)] = feature - centre
    return table
