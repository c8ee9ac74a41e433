"""What the metrics of sound share: clips at one rate, one resampler, a count of what failed.

A metric of sound is a file with one ``SpeechMetric``: it says which rate it is defined at, how it
cuts a clip, which package computes it, and scores one clip. Everything else is here: resampling,
missing packages (a named skip), clips that cannot be scored (counted, with the reason, and left
out of the mean) and the facts that every score carries.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError, check_shape
from tokenizers_vq.functional.resampling import DESCRIPTION, resample
from tokenizers_vq.metrics.base import (
    NO_UPDATE,
    Metric,
    Score,
    State,
    bootstrap,
    mean_score,
    skipped,
)
from tokenizers_vq.types import Codes

SILENCE = 1e-4  # peak below which a clip counts as silent (-80 dB of full scale)
INSTALL = 'pip install "tokenizers_vq[speech]"'


class Unscorable(Exception):
    """A metric has no value for a clip; the text is the reason it is counted under."""


class Column(NamedTuple):
    """One number of a metric: its name, its unit, and whether more is better."""

    name: str
    unit: str
    higher: bool | None


class SpeechMetric(Metric):
    """Collect clips and their reconstructions, score each, average.

    Args:
        sample_rate: of the clips that ``update`` gets, Hz.
        resamples: bootstrap draws per interval.
        seed: of the bootstrap.
    """

    columns: tuple[Column, ...]
    """The numbers ``score`` returns."""
    rate: int | None = 16000
    """Rate in Hz at which the metric is defined; None for that of the clips."""
    chunking = "whole clip"
    """How a clip is cut."""
    packages: tuple[tuple[str, str], ...] = ()
    """Modules that must be importable, each with the distribution it comes in."""
    install = INSTALL
    """The command that installs them."""

    def __init__(self, sample_rate: int = 16000, resamples: int = 1000, seed: int = 0) -> None:
        super().__init__(resamples, seed)
        self.sample_rate = sample_rate
        self.unscored: dict[str, Counter[str]] = {}
        self.reason = self.missing()

    def missing(self) -> str:
        """Return why the metric cannot be computed on this machine, empty if it can."""
        absent = [package for module, package in self.packages if find_spec(module) is None]
        return f"package {' and '.join(absent)} not found ({self.install})" if absent else ""

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return the numbers of one clip by the names in ``columns``.

        Args:
            real: ``(T,)`` float32 in [-1, 1] at ``rate``.
            fake: the same of its reconstruction.

        Raises:
            Unscorable: the metric has no value for this clip.
        """
        raise NotImplementedError(f"{type(self).__name__}.score")

    def facts(self) -> dict[str, Any]:
        """Return what a number of this metric depends on beside the clips."""
        return {}

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Add clips and their reconstructions, ``(B, 1, T)`` float32 in [-1, 1].

        Raises:
            ShapeError: other shapes, or two of them.
        """
        _check_clips(real, fake, type(self).__name__)
        if self.reason:
            return
        for a, b in zip(real[:, 0], fake[:, 0], strict=True):
            self._add_clip(a, b)

    def compute(self) -> dict[str, Score]:
        """Return one score per column; a missing package is a skip with its reason."""
        return {column.name: self._score(column) for column in self.columns}

    def reset(self) -> None:
        """Forget every clip."""
        super().reset()
        self.unscored = {}

    def state(self) -> State:
        """Return the values, and what could not be scored."""
        unscored = {name: dict(counts) for name, counts in self.unscored.items()}
        return {**super().state(), "unscored": unscored}

    def absorb(self, state: State) -> None:
        """Add another accumulator's clips."""
        super().absorb(state)
        for name, counts in state["unscored"].items():
            self.unscored.setdefault(name, Counter()).update(counts)

    def _add_clip(self, real: Tensor, fake: Tensor) -> None:
        target = self.rate or self.sample_rate
        pair = [resample(x, self.sample_rate, target).clamp(-1, 1) for x in (real, fake)]
        try:
            values = self.score(pair[0], pair[1])
        except Unscorable as why:
            values = {column.name: math.nan for column in self.columns}
            reason = str(why)
        else:
            reason = "no finite value"
        for name, value in values.items():
            if not math.isfinite(value):
                self.unscored.setdefault(name, Counter())[reason] += 1
            self._add(name, torch.tensor(value, dtype=torch.float64))

    def _score(self, column: Column) -> Score:
        name = column.name
        detail = self._detail(name)
        if self.reason:
            return skipped(self.reason, detail)
        values = self.values.get(name, [])
        scored = [value for value in values if math.isfinite(value)]
        if values and not scored:
            why = ", ".join(f"{n} x {reason}" for reason, n in self.unscored[name].items())
            return skipped(f"no clip could be scored ({why})", detail)
        if not scored:
            return skipped(NO_UPDATE, detail)
        score = mean_score(
            scored, self.resamples, self.seed, unit=column.unit, higher=column.higher
        )
        score.detail.update(detail)
        return score

    def _detail(self, name: str) -> dict[str, Any]:
        target = self.rate or self.sample_rate
        return {
            "sample_rate": target,
            "resampling": "none" if target == self.sample_rate else DESCRIPTION,
            "chunking": self.chunking,
            "versions": {package: _version(package) for _, package in self.packages},
            "unscored": dict(self.unscored.get(name, {})),
            **self.facts(),
        }


def ratio_score(
    numerators: Sequence[float],
    denominators: Sequence[float],
    resamples: int,
    seed: int,
    *,
    unit: str,
) -> Score:
    """Return the sum of ``numerators`` by that of ``denominators``; the bootstrap draws clips.

    Less is better: these are errors per word and bits per second.
    """
    table = torch.tensor([list(numerators), list(denominators)], dtype=torch.float64)
    above, below = table[:, table.isfinite().all(0)]
    interval = bootstrap(
        lambda rows: float(above[rows].sum() / below[rows].sum()), len(above), resamples, seed
    )
    return Score(float(above.sum() / below.sum()), len(above), interval, unit, False)


def check_sound(**clips: Tensor) -> None:
    """Raise ``Unscorable`` if a clip is silent; the keywords say whose it is."""
    for name, clip in clips.items():
        if not clip.numel() or float(clip.abs().max()) < SILENCE:
            raise Unscorable(f"silent {name}")


def check_length(clip: Tensor, samples: int) -> None:
    """Raise ``Unscorable`` if a clip ``(T,)`` is shorter than ``samples``."""
    if len(clip) < samples:
        raise Unscorable(f"shorter than {samples:,} samples")


def _check_clips(real: Tensor, fake: Tensor, where: str) -> None:
    for clips in (real, fake):
        check_shape(clips, "B 1 T", where, "Give clips of one channel.")
    if real.shape != fake.shape:
        raise ShapeError(
            f"{where}: expected two batches of one shape; got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}. Cut the reconstruction to its original."
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
