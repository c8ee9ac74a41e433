"""What a reconstruction is compared with: trivial anchors, and classic codecs at equal bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenizers_vq.evaluation import image_codecs as codecs
from tokenizers_vq.evaluation.condition import Condition
from tokenizers_vq.evaluation.protocol import Protocol, uint8_tensor
from tokenizers_vq.evaluation.rate_distortion import Curve, bd_rate
from tokenizers_vq.metrics.base import mean_interval

SHOWN = "best_scale"  # the rule of the pictures and of the per-picture rows


class Baselines:
    """Anchors and codecs of one evaluation, measured batch by batch beside the tokenizer.

    Args:
        protocol: names the anchors, codecs, budgets and metrics.
        weights: local weights files by key.

    Attributes:
        anchors: by name.
        coded: by codec, rule and multiple of the tokenizer's bytes.
        curve: what is measured at every budget; everything else at equal bytes only.
    """

    curve: Mapping[str, Any] = MappingProxyType({"name": "similarity", "names": ["psnr", "ssim"]})

    def __init__(self, protocol: Protocol, weights: Mapping[str, str]) -> None:
        self.protocol = protocol
        paired = [one for one in protocol.metrics if one["name"] != "codebook"]
        shared = {"weights": weights, "seed": protocol.seed}
        shared["resamples"] = 0  # intervals are given for the gain alone
        self.anchors = {name: Condition(paired, **shared) for name in protocol.anchors}
        self.coded: dict[tuple[str, str, float], Condition] = {
            (codec, rule, factor): Condition(paired if factor == 1 else [self.curve], **shared)
            for codec in protocol.codecs
            if not self.missing(codec)
            for rule in codecs.RULES
            for factor in (protocol.budgets if rule == SHOWN else [1])
        }
        self.pictures: dict[str, list[np.ndarray]] = {}

    def update(self, real: Tensor, n_bytes: Sequence[int]) -> list[dict[str, Any]]:
        """Add a batch.

        Args:
            real: the originals, uint8 ``(B, 3, H, W)``, or clips.
            n_bytes: size of the tokenizer's file of each picture.

        Returns:
            Per picture, per codec, what it did with the same bytes at its best scale.
            ``pictures`` holds what that looks like until the next batch.
        """
        for name, condition in self.anchors.items():
            condition.add(real, torch.stack([self.anchor(name, one) for one in real]))
        budgets = self.protocol.budgets
        equal = list(budgets).index(1)
        requests = [
            codecs.Request(pixels_of(one), tuple(max(1, int(f * size)) for f in budgets), equal)
            for one, size in zip(real, n_bytes, strict=True)
        ]
        rows: list[dict[str, Any]] = [{} for _ in requests]
        for codec in self.measured():
            coded = self.code(requests, codec)
            self._add((codec, "own_size", 1), [one["own_size"][0] for one in coded], real)
            for place, factor in enumerate(budgets):
                self._add((codec, SHOWN, factor), [one[SHOWN][place] for one in coded], real)
            column = [one[SHOWN][equal] for one in coded]
            self.pictures[codec] = [one.image for one in column]
            psnr = self.coded[codec, SHOWN, 1].values("psnr")[-len(rows) :]
            for row, one, value in zip(rows, column, psnr, strict=True):
                row[codec] = {"psnr": value, **one._asdict()}
                del row[codec]["image"]
        return rows

    def missing(self, codec: str) -> str:
        """Return why a codec cannot be measured, empty if it can."""
        return ""

    def measured(self) -> list[str]:
        """Return the codecs that are measured."""
        return list(dict.fromkeys(codec for codec, _, _ in self.coded))

    def anchor(self, name: str, picture: Tensor) -> Tensor:
        """Return the trivial reconstruction ``name`` of a uint8 picture ``(3, H, W)``."""
        return ANCHOR_IMAGES[name](picture)

    def code(
        self, requests: Sequence[codecs.Request], codec: str
    ) -> list[dict[str, list[codecs.Encoded]]]:
        """Return what a codec makes of pictures by each rule, see ``image_codecs.encode_many``."""
        return codecs.encode_many(requests, codec, self.protocol.codecs[codec])

    def anchor_values(self) -> dict[str, dict[str, float | None]]:
        """Return the metrics of every anchor."""
        return {name: _values(condition) for name, condition in self.anchors.items()}

    def points(self, psnr: Sequence[float]) -> dict[str, Any]:
        """Return, per codec and rule, one point per budget.

        Where the codec's smallest file of some pictures is larger than the budget, ``fitting`` of
        the point at equal bytes is about the others alone: only those were coded in as many bytes.

        Args:
            psnr: of the tokenizer's reconstructions in dB, picture by picture.
        """
        table: dict[str, Any] = {}
        for (codec, rule, factor), condition in self.coded.items():
            sizes, metrics = condition.counts["n_bytes"], _values(condition)
            point: dict[str, Any] = {
                "factor": factor,
                "n_bytes": sum(sizes) / len(sizes),
                "over_budget": sum(condition.counts["over"]),
                "metrics": metrics,
            }
            if factor == 1:
                point["psnr_gain"] = self._gain(psnr, condition.values("psnr"))
                if point["over_budget"]:
                    point["fitting"] = self._fitting(condition, psnr, set(metrics))
            table.setdefault(codec, {}).setdefault(rule, []).append(point)
        return table

    def rate_differences(
        self, n_bytes: Sequence[float], psnr: Sequence[float]
    ) -> dict[str, dict[str, Any]]:
        """Return how many percent more bytes the tokenizer needs than each codec for one PSNR.

        Args:
            n_bytes: of the tokenizer's files, picture by picture.
            psnr: of its reconstructions in dB, likewise.
        """
        tokenizer = Curve.of([n_bytes], [psnr])
        found = {}
        for codec in self.measured() if len(self.protocol.budgets) > 1 else ():
            column = [self.coded[codec, SHOWN, factor] for factor in self.protocol.budgets]
            sizes = [[float(size) for size in one.counts["n_bytes"]] for one in column]
            curve = Curve.of(sizes, [one.values("psnr") for one in column])
            draws = min(self.protocol.resamples, 200)
            found[codec] = asdict(bd_rate(tokenizer, curve, draws, self.protocol.seed))
        return found

    def _add(self, key: tuple[str, str, float], column: list[codecs.Encoded], real: Tensor) -> None:
        fake = torch.stack([torch.from_numpy(one.image).movedim(-1, 0) for one in column])
        self.coded[key].add(
            real,
            fake.contiguous(),
            n_bytes=[one.n_bytes for one in column],
            over=[int(not one.fits) for one in column],
        )

    def _fitting(
        self, condition: Condition, psnr: Sequence[float], shown: set[str]
    ) -> dict[str, Any]:
        """Return n, bytes, means and gain of the pictures whose file is within the budget."""
        places = [k for k, over in enumerate(condition.counts["over"]) if not over]
        if not places:
            return {"n": 0, "n_bytes": None, "metrics": {}, "psnr_gain": None}

        def mean(values: Sequence[float]) -> float:
            return float(np.mean([values[k] for k in places]))

        rows = [name for _, metric in condition.metrics for name in metric.rows()]
        columns = {name: condition.values(name) for name in rows if name in shown}
        total = len(condition.counts["over"])
        theirs = condition.values("psnr")
        return {
            "n": len(places),
            "n_bytes": mean(condition.counts["n_bytes"]),
            "metrics": {k: mean(values) for k, values in columns.items() if len(values) == total},
            "psnr_gain": self._gain([psnr[k] for k in places], [theirs[k] for k in places]),
        }

    def _gain(self, ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
        """Return the mean PSNR advantage of the tokenizer in dB, paired by picture."""
        gain = torch.tensor(ours, dtype=torch.float64) - torch.tensor(theirs, dtype=torch.float64)
        interval = mean_interval(gain, self.protocol.resamples, self.protocol.seed)
        return {"value": float(gain.mean()), "interval": interval}


def pixels_of(image: Tensor) -> np.ndarray:
    """Return a uint8 picture ``(3, H, W)`` as ``(H, W, 3)``, a clip as ``(T, H, W, 3)``."""
    pixels: np.ndarray = image.movedim(0, -1).contiguous().numpy()
    return pixels


def _values(condition: Condition) -> dict[str, float | None]:
    return {name: score.value for name, score in condition.scores().items()}


def _same(image: Tensor) -> Tensor:
    return image.clone()


def _jpeg_q75(image: Tensor) -> Tensor:
    table = codecs.RateTable(pixels_of(image), "jpeg")
    return torch.from_numpy(table.decode(75, 1.0, 0).image).permute(2, 0, 1)


def _down_up(image: Tensor) -> Tensor:
    picture = Image.fromarray(pixels_of(image))
    small = picture.resize(
        (max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.LANCZOS
    )
    return uint8_tensor(small.resize(picture.size, Image.Resampling.LANCZOS))


ANCHOR_IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": _same,
    "jpeg_q75": _jpeg_q75,
    "down_up_2x": _down_up,
}
