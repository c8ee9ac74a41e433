"""Splitting of indices into mixed-radix digits, with the checks of what a prior is fitted to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from tokenizers_vq.bitstream.alphabet import LARGEST
from tokenizers_vq.bitstream.tables import Ints
from tokenizers_vq.errors import ConfigError, ShapeError, check_indices


def split_digits(indices: Ints, digits: Sequence[Sequence[int]]) -> Ints:
    """Return ``(..., K')`` digits of ``indices (..., K)``, least significant first, as a copy."""
    columns = []
    for k, radices in enumerate(digits):
        rest = indices[..., k].astype(np.int64)
        for radix in radices:
            columns.append(rest % radix)
            rest = rest // radix
    return np.stack(columns, axis=-1)


def join_digits(symbols: Ints, digits: Sequence[Sequence[int]]) -> Ints:
    """Return the indices ``(..., K)`` of ``symbols (..., K')``: the inverse of ``split_digits``."""
    out, at = np.zeros((*symbols.shape[:-1], len(digits)), np.int64), 0
    for k, radices in enumerate(digits):
        for i in reversed(range(len(radices))):
            out[..., k] = out[..., k] * radices[i] + symbols[..., at + i]
        at += len(radices)
    return out


def check_radices(sizes: tuple[int, ...], digits: tuple[tuple[int, ...], ...]) -> None:
    """Raise ``ConfigError`` unless the digits multiply to the codebook sizes and can be coded."""
    if not sizes:
        raise ConfigError(
            "CountPrior.fit: expected at least one codebook; got none. Pass its size."
        )
    products = tuple(math.prod(radices) for radices in digits)
    if products != sizes:
        raise ConfigError(
            f"CountPrior.fit: expected digits that multiply to {sizes}; got {products}. "
            "Pass one tuple of radices per codebook."
        )
    for radix in (radix for radices in digits for radix in radices):
        if not 1 <= radix <= LARGEST:
            raise ConfigError(
                f"CountPrior.fit: expected alphabets of 1 to {LARGEST} symbols; got {radix}. "
                "Split the codebook with digits=."
            )


def check_items(items: Sequence[ArrayLike], sizes: tuple[int, ...]) -> list[Ints]:
    """Return ``items`` as int64 arrays ``(*grid, K)`` of one rank, all inside their codebooks."""
    if not len(items):
        raise ConfigError("CountPrior.fit: expected at least one item; got none. Pass indices.")
    arrays = [np.asarray(item) for item in items]
    for array in arrays:
        if array.ndim != arrays[0].ndim or array.dtype.kind not in "iu":
            raise ShapeError(
                f"CountPrior.fit: expected integer items of rank {arrays[0].ndim}; "
                f"got {array.dtype} of shape {array.shape}. Fit one prior per grid rank."
            )
        check_indices(torch.from_numpy(array.astype(np.int64)), sizes, "CountPrior.fit")
        if array.size and array.min() < 0:
            raise ShapeError(
                "CountPrior.fit: expected indices of at least 0; got -1 (a masked position). "
                "Leave masked items out."
            )
    return [array.astype(np.int64) for array in arrays]
