"""Numbers that change during training, written as plain data."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from tokenizers_vq.errors import ConfigError

FORMS = "a number, {from, to, over, start} or {points: [[step, value], ...]}"


@dataclass(frozen=True)
class Schedule:
    """A piecewise linear function of the optimizer step, constant outside its points.

    Attributes:
        points: ``(step, value)`` pairs with rising steps, at least one.
    """

    points: tuple[tuple[int, float], ...]

    def __call__(self, step: int) -> float:
        """Return the value at ``step`` (optimizer steps taken so far)."""
        after = bisect_right(self.points, step, key=lambda point: point[0])
        if after == 0 or after == len(self.points):
            return self.points[max(after - 1, 0)][1]
        (left, low), (right, high) = self.points[after - 1 : after + 1]
        return low + (high - low) * (step - left) / (right - left)

    @classmethod
    def from_config(cls, config: float | Mapping[str, Any], where: str) -> Self:
        """Build a schedule from plain data.

        Args:
            config: a number (constant); ``{from: a, to: b, over: n, start: s}``, a line from ``a``
                at step ``s`` (default 0) to ``b`` at ``s + n``; or ``{points: [[step, value]]}``.
            where: the name the error message starts with.

        Raises:
            ConfigError: another form, a value that is not a number, or steps that do not rise.
        """
        try:
            return cls(_points(config))
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"{where}: expected {FORMS}; got {config!r:.80}. Steps must rise."
            ) from error


def _points(config: Any) -> tuple[tuple[int, float], ...]:
    """Return the points of ``config``, or raise TypeError, ValueError or KeyError."""
    if isinstance(config, bool | str):
        raise TypeError(config)
    if not isinstance(config, Mapping):
        return ((0, float(config)),)
    if set(config) == {"points"}:
        points = tuple((int(step), float(value)) for step, value in config["points"])
    elif set(config) <= {"from", "to", "over", "start"}:
        start, over = int(config.get("start", 0)), int(config["over"])
        points = ((start, float(config["from"])), (start + over, float(config["to"])))
    else:
        raise ValueError(config)
    steps = [step for step, _ in points]
    if not points or any(right <= left for left, right in pairwise(steps)):
        raise ValueError(config)
    return points
