"""The file of a count prior: safetensors with integer tables, and a digest of their content.

Metadata: under the one key ``prior`` (several would be stored in random order) a JSON object with
``format``, ``sha256`` (``digest``), and ``header``: ``codebook_sizes``, ``digits`` (the radices
each codebook's index is split into, least significant first; all of them in order are the K'
columns), ``rank`` and ``model``. Tensors, columns one after the other in the flat ones::

    shape      int32 (K', 3)  C symbols or classes, cuts of the energy, cuts of the mean
    order0     uint8          C code lengths in 1/16 bit without context
    cuts       int32          the cuts of the energy, then of the mean; a bin is the number of cuts
                              that are at most the score
    cells      uint8          code lengths (energy bins, mean bins, C)
    weights    int8 (2, 1 + R, K', K')  ``contexts.scores``
    classes.k  uint8          zlib stream of the class of every symbol of a large column k; places
                              in a class go by symbol
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from tokenizers_vq.bitstream.tables import Bytes
from tokenizers_vq.errors import BitstreamError

FORMAT = "tokenizers_vq.prior.1"


@dataclass
class PriorData:
    """Everything a prior is made of; integers only.

    Attributes:
        codebook_sizes: the K codebook sizes.
        digits: the radices each codebook's index is split into; all of them are the K' columns.
        rank: number of grid axes.
        model: the tokenizer's ``name@hash``.
        classes: of every column with a large alphabet, the class of each symbol.
        weights: ``(2, 1 + R, K', K')`` int8, or empty for no context.
        order0: of every column, code lengths ``(1, C)`` in 1/16 bit.
        cuts: of every column, the cuts of energy and of mean.
        cells: of every column, code lengths ``(cells, C)``.
    """

    codebook_sizes: tuple[int, ...]
    digits: tuple[tuple[int, ...], ...]
    rank: int
    model: str
    classes: dict[int, Bytes] = field(default_factory=dict)
    weights: NDArray[np.int8] = field(default_factory=lambda: np.zeros((2, 0, 0, 0), np.int8))
    order0: list[Bytes] = field(default_factory=list)
    cuts: list[tuple[list[int], list[int]]] = field(default_factory=list)
    cells: list[Bytes] = field(default_factory=list)

    @property
    def columns(self) -> tuple[int, ...]:
        """The alphabet sizes of the K' columns."""
        return tuple(radix for radices in self.digits for radix in radices)


def leading(data: PriorData, count: int) -> PriorData:
    """Return the tables of the first ``count`` codebooks."""
    columns = sum(len(radices) for radices in data.digits[:count])
    return PriorData(
        data.codebook_sizes[:count],
        data.digits[:count],
        data.rank,
        data.model,
        {k: classes for k, classes in data.classes.items() if k < columns},
        np.ascontiguousarray(data.weights[:, :, :columns, :columns]),
        data.order0[:columns],
        data.cuts[:columns],
        data.cells[:columns],
    )


def digest(data: PriorData) -> str:
    """Return the SHA-256 of the content, whatever file it is in: header, then tensors by name."""
    sha = hashlib.sha256(_header(data).encode())
    for name, tensor in sorted(_tensors(data).items()):
        sha.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        sha.update(np.ascontiguousarray(tensor).tobytes())
    return sha.hexdigest()


def to_bytes(data: PriorData) -> bytes:
    """Return the safetensors file of ``data``."""
    tensors = _tensors(data)
    for name in tensors:
        if name.startswith("classes."):
            tensors[name] = np.frombuffer(zlib.compress(tensors[name].tobytes(), 9), np.uint8)
    meta = {"format": FORMAT, "header": json.loads(_header(data)), "sha256": digest(data)}
    return bytes(to_safetensors(tensors, {"prior": json.dumps(meta, sort_keys=True)}))


def load(path: str | Path) -> PriorData:
    """Read a file of ``save``.

    Raises:
        BitstreamError: it is missing, is no prior, or its content is not what its digest says.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            meta = json.loads((file.metadata() or {}).get("prior", "{}"))
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
        if meta.get("format") != FORMAT:
            raise ValueError(f"format {meta.get('format')!r}")
        data = _parse(meta["header"], tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise BitstreamError(
            f"CountPrior.load: expected a {FORMAT} file at {path}; got {_first_line(error)}. "
            "Fit the prior again, or copy the file again."
        ) from error
    if digest(data) != meta.get("sha256"):
        raise BitstreamError(
            f"CountPrior.load: expected content of sha256 {meta.get('sha256')}; "
            f"got {digest(data)}. "
            "The file is damaged; copy it again."
        )
    return data


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _header(data: PriorData) -> str:
    header = {
        "codebook_sizes": data.codebook_sizes,
        "digits": data.digits,
        "rank": data.rank,
        "model": data.model,
    }
    return json.dumps(header, sort_keys=True)


def _tensors(data: PriorData) -> dict[str, NDArray[Any]]:
    """Return the tables as flat tensors; ``shape`` holds C and both numbers of cuts per column."""
    shape = [
        (lengths.shape[1], len(energy), len(mean))
        for lengths, (energy, mean) in zip(data.order0, data.cuts, strict=True)
    ]
    cuts = [cut for pair in data.cuts for part in pair for cut in part]
    tensors: dict[str, NDArray[Any]] = {
        "shape": np.array(shape, np.int32),
        "order0": np.concatenate([lengths.reshape(-1) for lengths in data.order0]),
        "cuts": np.array(cuts, np.int32),
        "cells": np.concatenate([cells.reshape(-1) for cells in data.cells]),
        "weights": data.weights,
    }
    return tensors | {f"classes.{k}": classes for k, classes in data.classes.items()}


def _parse(header: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> PriorData:
    """Undo ``_tensors``; raises ValueError, KeyError or TypeError where the parts do not fit."""
    data = PriorData(
        tuple(header["codebook_sizes"]),
        tuple(tuple(radices) for radices in header["digits"]),
        int(header["rank"]),
        str(header["model"]),
        weights=tensors["weights"],
    )
    for k, size in enumerate(data.columns):
        if f"classes.{k}" in tensors:
            inflate = zlib.decompressobj()
            raw = inflate.decompress(tensors[f"classes.{k}"].tobytes(), size + 1)
            data.classes[k] = np.frombuffer(raw, np.uint8)
    order0, cuts, cells = (list(tensors[name]) for name in ("order0", "cuts", "cells"))
    for size, energy, mean in tensors["shape"].tolist():
        data.order0.append(_take(order0, 1, size))
        data.cuts.append((_ints(cuts, energy), _ints(cuts, mean)))
        data.cells.append(_take(cells, (energy + 1) * (mean + 1), size))
    return data


def _take(flat: list[Any], rows: int, size: int) -> Bytes:
    return np.array(_ints(flat, rows * size), np.uint8).reshape(rows, size)


def _ints(flat: list[Any], count: int) -> list[int]:
    taken = [int(value) for value in flat[:count]]
    del flat[:count]
    return taken
