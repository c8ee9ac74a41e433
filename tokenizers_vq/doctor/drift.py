"""How far the use of the codes moves from one data set to another.

Reference:
    Lin, Divergence Measures Based on the Shannon Entropy, 1991,
    https://doi.org/10.1109/18.61115, eq. 4.1 (Jensen-Shannon divergence, both sets alike).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.doctor.survey import Survey
from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.codebook import entropy_bits

SPLITS = 40  # random splits of the items that show the drift of no drift
CHANGED = 5  # codes named in a drift
MIN_ITEMS = 4


def drift(before: Survey, after: Survey, seed: int = 0) -> list[dict[str, Any]]:
    """Return how far the use of each codebook moved between two data sets.

    The divergence of two samples of one source is not zero. What it would be is measured: the
    items of both sets are mixed and split at random, in parts as large as the sets.

    Returns:
        For each codebook: ``divergence`` in bits, 0 (same use) to 1 (no code in common);
        ``noise``, its 95th percentile over random splits, or None with fewer than 4 items;
        ``changed``, the codes whose share changed most, with both shares.

    Raises:
        ShapeError: the two were made by tokenizers of different codebooks.
    """
    sizes = [one.tokenizer.quantizer.codebook_sizes for one in (before, after)]
    if sizes[0] != sizes[1]:
        raise ShapeError(
            f"drift: expected surveys of codebooks {sizes[0]}; got {sizes[1]}. "
            "Compare two data sets with one tokenizer."
        )
    generator = torch.Generator().manual_seed(seed)
    items = [item.reshape(-1, item.shape[-1]) for item in before.items + after.items]
    owner = torch.cat([torch.full((len(item),), k) for k, item in enumerate(items)])
    first = len(before.items)
    splits = [torch.randperm(len(items), generator=generator)[:first] for _ in range(SPLITS)]
    return [
        _column_drift(torch.cat([item[:, k] for item in items]), owner, first, splits)
        for k in range(items[0].shape[1])
    ]


def _column_drift(
    column: Tensor, owner: Tensor, first: int, splits: Sequence[Tensor]
) -> dict[str, Any]:
    codes, place = torch.unique(column, return_inverse=True)
    items = int(owner.max()) + 1
    p, q = _shares(place, owner < first, len(codes))
    noise = None
    if items >= MIN_ITEMS:
        chance = []
        for split in splits:
            mine = torch.zeros(items, dtype=torch.bool)
            mine[split] = True
            chance.append(_divergence(*_shares(place, mine[owner], len(codes))))
        noise = sorted(chance)[math.ceil(0.95 * len(chance)) - 1]
    most = (p - q).abs().argsort(descending=True)[:CHANGED]
    changed = [[int(codes[i]), round(float(p[i]), 6), round(float(q[i]), 6)] for i in most]
    return {"divergence": _divergence(p, q), "noise": noise, "changed": changed}


def _shares(place: Tensor, mine: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the shares of each code among the tokens that are ``mine`` and among the others."""
    counts = [torch.bincount(place[part], minlength=size).double() for part in (mine, ~mine)]
    return counts[0] / counts[0].sum(), counts[1] / counts[1].sum()


def _divergence(p: Tensor, q: Tensor) -> float:
    middle = entropy_bits(p + q)
    return max(0.0, middle - (entropy_bits(p) + entropy_bits(q)) / 2)
