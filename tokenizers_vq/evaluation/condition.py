"""One way to code every item of a data set: its metrics, what was counted, what measuring cost."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tokenizers_vq import registry
from tokenizers_vq.metrics.base import Metric, Score, State, extend


class Condition:
    """A tokenizer at one rate, an anchor, or a classic codec at one setting.

    Args:
        configs: of the registered metrics.
        **shared: options that all of them may take (``weights``, ``resamples``, ``seed``, ...).

    Attributes:
        metrics: by their place in ``configs``, each with its registered name.
        counts: what was counted, a number per item.
        cost: CPU seconds of each metric, a number per call of ``add``.
    """

    def __init__(self, configs: Sequence[Mapping[str, Any]], **shared: Any) -> None:
        self.metrics: list[tuple[str, Metric]] = [
            (config["name"], registry.build("metric", config, **shared)) for config in configs
        ]
        self.counts: dict[str, list[float]] = {}
        self.cost: dict[str, list[float]] = {}

    def add(
        self, real: Tensor, fake: Tensor, codes: Any = None, **counts: Sequence[float]
    ) -> list[dict[str, float | None]]:
        """Add a batch: originals, what became of them, the codes in between, and counts per item.

        Returns:
            Per item its counts and the values of the metrics that have one per item; None stands
            for a value that is not finite.
        """
        rows: list[dict[str, float | None]] = [{} for _ in real]
        for name, column in counts.items():
            self.counts.setdefault(name, []).extend(column)
            _note(rows, name, column)
        for name, metric in self.metrics:
            before = {key: len(values) for key, values in metric.rows().items()}
            start = time.process_time()
            metric.update(real, fake, codes)
            self.cost.setdefault(name, []).append(time.process_time() - start)
            for key, values in metric.rows().items():
                _note(rows, key, values[before.get(key, 0) :])
        return rows

    def scores(self) -> dict[str, Score]:
        """Return the scores of every metric by name."""
        return {name: one for _, metric in self.metrics for name, one in metric.compute().items()}

    def values(self, name: str) -> list[float]:
        """Return the values of a metric, item by item; empty if no metric has such values."""
        tables = (metric.rows() for _, metric in self.metrics)
        return next((table[name] for table in tables if name in table), [])

    def reset(self) -> None:
        """Forget every item."""
        self.counts, self.cost = {}, {}
        for _, metric in self.metrics:
            metric.reset()

    def state(self) -> State:
        """Return everything collected, for ``absorb``."""
        metrics = [metric.state() for _, metric in self.metrics]
        return {"metrics": metrics, "counts": self.counts, "cost": self.cost}

    def absorb(self, state: State) -> None:
        """Add what another one of the same kind has collected."""
        extend(self.counts, state["counts"])
        extend(self.cost, state["cost"])
        for (_, metric), one in zip(self.metrics, state["metrics"], strict=True):
            metric.absorb(one)


def _note(rows: Sequence[dict[str, float | None]], name: str, column: Sequence[float]) -> None:
    """Give every row its value; a column without a value per row is left out."""
    if len(column) == len(rows):
        for row, value in zip(rows, column, strict=True):
            row[name] = value if math.isfinite(value) else None
