"""What every metric shares: the score it returns, and an accumulator of per-image values.

A metric is a file: pure functions, and one ``Metric`` that collects batches. ``compute`` returns
scores, never bare floats, because a number without its n and interval is not a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, ShapeError, check_shape, unknown_name
from tokenizers_vq.types import Codes

NO_UPDATE = "no image was scored"
State = dict[str, Any]
"""What was collected so far: numbers, texts and tensors in lists, tuples and dicts."""


@dataclass(frozen=True)
class Score:
    """One number of a result, with what is needed to trust it.

    Attributes:
        value: the number, None when the metric was skipped.
        n: how many images (or tokens, see ``unit``) it was computed from.
        interval: 95 % percentile bootstrap interval over images, None where it has no meaning.
        unit: e.g. ``dB``; empty for a plain ratio.
        higher_is_better: None for facts without a direction.
        status: ``ok`` or ``skipped``.
        reason: why it was skipped, in one sentence.
        detail: further numbers and the names of what was used (extractor, token count, ...).
    """

    value: float | None
    n: int
    interval: tuple[float, float] | None = None
    unit: str = ""
    higher_is_better: bool | None = None
    status: Literal["ok", "skipped"] = "ok"
    reason: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


def skipped(reason: str, detail: dict[str, Any] | None = None) -> Score:
    """Return the score of a metric that could not be computed, with the reason."""
    return Score(None, 0, status="skipped", reason=reason, detail=detail or {})


def bootstrap(
    statistic: Callable[[Tensor], float], n: int, resamples: int, seed: int
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of ``statistic`` over resampled images.

    Reference:
        Efron, Bootstrap Methods: Another Look at the Jackknife, 1979, section 5.

    Args:
        statistic: takes row numbers ``(n,)`` int64, drawn with replacement; returns the value.
        n: number of images; fewer than 2 give None.
        resamples: number of draws; 0 gives None.
        seed: of the generator that draws.
    """
    if n < 2 or resamples < 1:
        return None
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(n, (resamples, n), generator=generator)
    values = torch.tensor([statistic(rows) for rows in draws], dtype=torch.float64)
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def mean_interval(values: Tensor, resamples: int, seed: int) -> tuple[float, float] | None:
    """Return ``bootstrap`` of the mean of ``values (n,)``, all draws at once."""
    n = len(values)
    if n < 2 or resamples < 1:
        return None
    generator = torch.Generator().manual_seed(seed)
    means = values.double()[torch.randint(n, (resamples, n), generator=generator)].mean(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def mean_score(
    values: Sequence[float], resamples: int, seed: int, *, unit: str = "", higher: bool | None
) -> Score:
    """Return the mean of per-image values with its bootstrap interval."""
    if not values:
        return skipped(NO_UPDATE)
    column = torch.tensor(values, dtype=torch.float64)
    interval = mean_interval(column, resamples, seed)
    return Score(float(column.mean()), len(values), interval, unit, higher)


def check_images(real: Tensor, fake: Tensor, where: str, *, clips: bool = False) -> None:
    """Raise ``ShapeError`` unless both are uint8 ``(B, 3, H, W)`` of one shape.

    Of ``clips`` the shape is ``(B, 3, T, H, W)``.
    """
    for images in (real, fake):
        check_shape(images, "B 3 T H W" if clips else "B 3 H W", where)
        if images.dtype != torch.uint8:
            raise ShapeError(
                f"{where}: expected uint8 images; got {images.dtype}. Round and clip them first."
            )
    if real.shape != fake.shape:
        raise ShapeError(
            f"{where}: expected two batches of one shape; got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}. Crop the padding first."
        )


class Metric:
    """Collect batches, then compute scores.

    Args:
        resamples: bootstrap draws per interval; 0 gives no intervals.
        seed: of the bootstrap.
    """

    def __init__(self, resamples: int = 1000, seed: int = 0) -> None:
        if resamples < 0:
            raise ConfigError(
                f"{type(self).__name__}: expected resamples >= 0; got {resamples}. "
                "Use 0 for no intervals."
            )
        self.resamples = resamples
        self.seed = seed
        self.values: dict[str, list[float]] = {}

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Add a batch: the originals, their reconstructions, and the codes in between.

        Shapes:
            real, fake (B, 3, H, W) uint8, paired by position.
        """
        raise NotImplementedError(f"{type(self).__name__}.update")

    def compute(self) -> dict[str, Score]:
        """Return the scores of everything added since the last ``reset``, by name."""
        raise NotImplementedError(f"{type(self).__name__}.compute")

    def reset(self) -> None:
        """Forget every batch."""
        self.values = {}

    def state(self) -> State:
        """Return everything collected, for ``absorb``; it can be stored and sent."""
        return {"values": self.values}

    def absorb(self, state: State) -> None:
        """Add what another accumulator of the same kind has collected, as its ``state`` says."""
        extend(self.values, state["values"])

    def merge(self, other: Metric) -> None:
        """Add what another accumulator of the same kind has collected (another rank or shard)."""
        self.absorb(other.state())

    def rows(self) -> dict[str, list[float]]:
        """Return the per-image values by name, in the order of the updates."""
        return self.values

    def _add(self, name: str, values: Tensor) -> None:
        self.values.setdefault(name, []).extend(values.double().flatten().tolist())


def extend(table: dict[str, list[float]], other: Mapping[str, Sequence[float]]) -> None:
    """Append the columns of ``other`` to those of ``table``."""
    for name, values in other.items():
        table.setdefault(name, []).extend(values)


def choose(kind: str, wanted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return ``wanted`` as a tuple.

    Raises:
        ConfigError: it names something that is not in ``known``.
    """
    for name in wanted:
        if name not in known:
            raise unknown_name(kind, name, known)
    return tuple(wanted)


def is_finite(value: float | None) -> bool:
    """Say whether ``value`` is a number that can be shown and compared."""
    return value is not None and math.isfinite(value)
