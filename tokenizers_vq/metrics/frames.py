"""Numbers of pictures taken frame by frame: any metric of pictures becomes one of videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from tokenizers_vq.metrics.base import Metric, Score, State, mean_score
from tokenizers_vq.metrics.video import frames_of
from tokenizers_vq.types import Codes


class Frames(Metric):
    """Means over the frames of each clip, then over clips; intervals resample clips, not frames.

    A PSNR of a clip is the mean of those of its frames, which is never below that of the mean
    error. Beside it stands ``later_psnr``, of all frames but the first, which a repeated first
    frame has for nothing.

    Args:
        of: metrics that give a number per picture; nested as data.
        resamples: bootstrap draws per interval.
        seed: of the bootstrap.
    """

    nests = True

    def __init__(self, of: Sequence[Metric], resamples: int = 1000, seed: int = 0) -> None:
        super().__init__(resamples, seed)
        self.of = list(of)
        self.templates: dict[str, Score] = {}
        self.places: dict[str, list[Tensor]] = {}
        for metric in self.of:
            metric.resamples = 0  # frames are not resampled

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Add a batch of pairs of clips, uint8 ``(B, 3, T, H, W)``."""
        a, b = frames_of(real), frames_of(fake)
        for metric in self.of:
            metric.update(a, b)
            self.templates |= metric.compute()
            for name, column in metric.rows().items():
                self._add_frames(name, torch.tensor(column, dtype=torch.float64), len(real))
            metric.reset()

    def compute(self) -> dict[str, Score]:
        """Return the means, or why there are none; ``detail`` has the mean of every place."""
        if not self.templates:
            return {name: score for one in self.of for name, score in one.compute().items()}
        scores = {}
        for name, template in self.templates.items():
            if template.status == "skipped":
                scores[name] = template
            elif name in self.values:
                scores[name] = self._score(name, template)
                if f"later_{name}" in self.values:
                    scores[f"later_{name}"] = self._score(f"later_{name}", template)
        return scores

    def reset(self) -> None:
        """Forget every batch."""
        super().reset()
        self.templates, self.places = {}, {}

    def state(self) -> State:
        """Return the means of clips, those of places, and what every score is like."""
        templates = {name: asdict(score) for name, score in self.templates.items()}
        return {**super().state(), "templates": templates, "places": self.places}

    def absorb(self, state: State) -> None:
        """Add what another accumulator has collected."""
        super().absorb(state)
        templates = {name: Score(**score) for name, score in state["templates"].items()}
        self.templates = {**templates, **self.templates}
        for name, tables in state["places"].items():
            self.places.setdefault(name, []).extend(tables)

    def _add_frames(self, name: str, column: Tensor, batch: int) -> None:
        table = column.reshape(batch, -1)  # (B, T)
        self.places.setdefault(name, []).append(table)
        self._add(name, table.mean(1))
        if name == "psnr" and table.shape[1] > 1:
            self._add("later_psnr", table[:, 1:].mean(1))

    def _score(self, name: str, template: Score) -> Score:
        unit, higher = template.unit, template.higher_is_better
        score = mean_score(self.values[name], self.resamples, self.seed, unit=unit, higher=higher)
        if name in self.places:
            places = torch.cat(self.places[name]).mean(0).tolist()
            score.detail["per_frame"] = [round(one, 6) for one in places]
        return score
