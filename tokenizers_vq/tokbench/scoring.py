"""Scale buckets, exact matches, edit distances, and the interval of a share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.metrics.base import mean_interval

TEXT_BUCKETS = {  # by the side of the canvas; half-open, what falls outside is left out
    256: (0.02, 0.03, 0.04, 1.0),
    512: (0.01, 0.02, 0.03, 1.0),
    1024: (0.005, 0.01, 0.02, 1.0),
}
FACE_BUCKETS = {
    256: (0.1, 0.2, 0.3, 1.0),
    512: (0.05, 0.1, 0.2, 1.0),
    1024: (0.02, 0.05, 0.1, 1.0),
}
VIDEO_TEXT_BUCKETS = {256: (0.01, 0.02, 0.03, 1.0), 480: (0.005, 0.01, 0.02, 1.0)}
VIDEO_FACE_BUCKETS = {256: (0.05, 0.1, 0.2, 1.0), 480: (0.02, 0.05, 0.1, 1.0)}
NAMES = ("small", "medium", "large")
RESAMPLES, SEED = 1000, 0  # of bootstrap intervals
Z = 1.959963984540054  # of a 95 % interval


def bucket(ratio: float, edges: Sequence[float]) -> str | None:
    """Return ``small``, ``medium`` or ``large``; None outside the edges."""
    for name, low, high in zip(NAMES, edges, edges[1:], strict=False):
        if low <= ratio < high:
            return name
    return None


def edges_of(table: Mapping[int, tuple[float, ...]], side: int) -> tuple[float, ...]:
    """Return the edges of a canvas side.

    Raises:
        ConfigError: TokBench has no such side.
    """
    if side not in table:
        raise ConfigError(
            f"tokbench: expected a side of {', '.join(map(str, table))}; got {side}. "
            "The buckets are defined for these."
        )
    return table[side]


def edit_distance(a: str, b: str) -> int:
    """Return the least number of insertions, deletions and replacements from ``a`` to ``b``.

    Reference:
        Levenshtein, Binary Codes Capable of Correcting Deletions, Insertions and Reversals, 1966.
    """
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def ned(label: str, read: str) -> float:
    """Return 1 - distance / length of the longer one: T-NED of a word; raw strings."""
    longest = max(len(label), len(read))
    return 1.0 if not longest else 1 - edit_distance(label, read) / longest


def wilson(hits: float, n: int) -> tuple[float, float] | None:
    """Return the 95 % score interval of a share.

    Reference:
        Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927, eq. 5.
    """
    if n < 1:
        return None
    p = hits / n
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def by_bucket(
    values: Sequence[float],
    ratios: Sequence[float],
    edges: Sequence[float],
    *,
    share: bool,
    intervals: bool = True,
) -> dict[str, Any]:
    """Return mean, n and 95 % interval per bucket, and the plain mean of the bucket means.

    Args:
        values: per word or face.
        ratios: likewise.
        edges: of the buckets.
        share: whether values are 0 or 1, so that Wilson's interval holds; else it is that of the
            percentile bootstrap.
        intervals: whether values are independent enough for an interval.
    """
    table: dict[str, Any] = {}
    for name in NAMES:
        inside = [v for v, r in zip(values, ratios, strict=True) if bucket(r, edges) == name]
        mean = sum(inside) / len(inside) if inside else None
        interval = None
        if intervals and share:
            interval = wilson(sum(inside), len(inside))
        elif intervals:
            interval = mean_interval(torch.tensor(inside, dtype=torch.float64), RESAMPLES, SEED)
        table[name] = {"value": mean, "n": len(inside), "interval": interval}
    means = [table[name]["value"] for name in NAMES]
    known = [mean for mean in means if mean is not None]
    table["mean"] = sum(known) / len(known) if len(known) == len(means) else None
    return table
