"""How many more bytes one coder needs than another for the same quality.

Reference:
    Bjontegaard, Calculation of Average PSNR Differences between RD-curves, ITU-T VCEG-M33, 2001.
    Differs from it: the curve through the points is monotone (Fritsch and Butland, A Method for
    Constructing Local Monotone Piecewise Cubic Interpolants, 1984) instead of one cubic, which
    overshoots between distant points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.base import bootstrap

STEPS = 1000  # of the integral over the shared quality


@dataclass(frozen=True)
class Curve:
    """What a coder makes of the same pictures at several settings.

    Attributes:
        rates: bytes, ``(settings, pictures)`` float64.
        quality: e.g. PSNR in dB, ``(settings, pictures)`` float64; the higher the better.
    """

    rates: Tensor
    quality: Tensor

    @classmethod
    def of(cls, rates: Sequence[Sequence[float]], quality: Sequence[Sequence[float]]) -> Curve:
        """Return the curve of nested lists, a list of pictures per setting."""
        return cls(*(torch.tensor(one, dtype=torch.float64) for one in (rates, quality)))

    def points(self, rows: Tensor | None = None) -> tuple[list[float], list[float]]:
        """Return mean qualities in rising order and log mean rates, of chosen pictures."""
        columns = [self.rates, self.quality]
        rates, quality = ((c if rows is None else c[:, rows]).mean(1).tolist() for c in columns)
        kept: list[tuple[float, float]] = []
        for q, r in sorted(zip(quality, rates, strict=True)):
            if not kept or (q > kept[-1][0] + 1e-9 and math.log(r) > kept[-1][1]):
                kept.append((q, math.log(r)))
        return [q for q, _ in kept], [r for _, r in kept]


@dataclass(frozen=True)
class RateDifference:
    """The mean difference of bytes at equal quality.

    Attributes:
        percent: positive where the coder needs more bytes than the other; None where the curves
            share no quality.
        interval: 95 % bootstrap over pictures, pairs kept together; None without one.
        shared: lowest and highest quality that both reach.
    """

    percent: float | None
    interval: tuple[float, float] | None
    shared: tuple[float, float] | None


def bd_rate(coder: Curve, other: Curve, resamples: int = 0, seed: int = 0) -> RateDifference:
    """Return the Bjontegaard rate difference of ``coder`` against ``other``.

    The mean over the shared qualities of the difference of the logarithms of the bytes, as a
    percentage. A coder of one setting is compared at its own quality: the limit of the same mean.

    Args:
        coder: one setting or more.
        other: at least two settings.
        resamples: bootstrap draws; 0 gives no interval.
        seed: of the bootstrap.

    Raises:
        ShapeError: the curves are not of the same pictures, or ``other`` has one setting.
    """
    pictures = coder.rates.shape[1]
    if other.rates.shape[1] != pictures or len(other.rates) < 2:
        raise ShapeError(
            "bd_rate: expected two curves of the same pictures, the second of at least 2 settings; "
            f"got {tuple(coder.rates.shape)} and {tuple(other.rates.shape)} (settings, pictures). "
            "Measure both on the same files."
        )
    shared = _shared(coder.points()[0], other.points()[0])
    if shared is None:
        return RateDifference(None, None, None)
    value = _percent(coder, other, None)

    def again(rows: Tensor) -> float:
        percent = _percent(coder, other, rows)
        return math.nan if percent is None else percent

    return RateDifference(value, _finite(again, pictures, resamples, seed), shared)


def monotone_cubic(x: Sequence[float], y: Sequence[float]) -> Callable[[float], float]:
    """Return the monotone piecewise cubic through points of rising x; two points give a line."""
    steps = [b - a for a, b in pairwise(x)]
    slopes = [(b - a) / h for (a, b), h in zip(pairwise(y), steps, strict=True)]
    ends = _tangents(steps, slopes)

    def at(t: float) -> float:
        k = max(0, min(len(steps) - 1, sum(t >= one for one in x) - 1))
        h, s = steps[k], (t - x[k]) / steps[k]
        a, b = ends[k] * h, ends[k + 1] * h
        rise = y[k + 1] - y[k]
        return y[k] + s * (a + s * ((3 * rise - 2 * a - b) + s * (a + b - 2 * rise)))

    return at


def _tangents(steps: list[float], slopes: list[float]) -> list[float]:
    """Return the derivative at every point: weighted harmonic means inside, one-sided outside."""
    if len(slopes) == 1:
        return [slopes[0], slopes[0]]
    inner = []
    for k in range(1, len(slopes)):
        a, b = slopes[k - 1], slopes[k]
        if a * b <= 0:
            inner.append(0.0)
            continue
        left, right = 2 * steps[k] + steps[k - 1], steps[k] + 2 * steps[k - 1]
        inner.append((left + right) / (left / a + right / b))
    first = _end(steps[0], steps[1], slopes[0], slopes[1])
    return [first, *inner, _end(steps[-1], steps[-2], slopes[-1], slopes[-2])]


def _end(h: float, next_h: float, slope: float, next_slope: float) -> float:
    """Return the three-point derivative at an end, kept from turning round or overshooting."""
    value = ((2 * h + next_h) * slope - h * next_slope) / (h + next_h)
    if value * slope <= 0:
        return 0.0
    if slope * next_slope <= 0 and abs(value) > abs(3 * slope):
        return 3 * slope
    return value


def _percent(coder: Curve, other: Curve, rows: Tensor | None) -> float | None:
    (q, r), (q_other, r_other) = coder.points(rows), other.points(rows)
    shared = _shared(q, q_other)
    if shared is None or len(q_other) < 2:
        return None
    low, high = shared
    theirs = monotone_cubic(q_other, r_other)
    if len(q) == 1:
        return 100 * (math.exp(r[0] - theirs(q[0])) - 1)
    ours = monotone_cubic(q, r)
    # midpoints, so that no end is counted twice
    places = [low + (high - low) * (k + 0.5) / STEPS for k in range(STEPS)]
    return 100 * (math.exp(sum(ours(t) - theirs(t) for t in places) / STEPS) - 1)


def _shared(a: list[float], b: list[float]) -> tuple[float, float] | None:
    low, high = max(a[0], b[0]), min(a[-1], b[-1])
    return (low, high) if low < high or (low == high and 1 in (len(a), len(b))) else None


def _finite(
    statistic: Callable[[Tensor], float], n: int, resamples: int, seed: int
) -> tuple[float, float] | None:
    """Return the bootstrap interval, or None where a draw leaves nothing to compare."""
    interval = bootstrap(statistic, n, resamples, seed)
    return None if interval is None or any(map(math.isnan, interval)) else interval
