"""The state of one evaluation on pictures: batches reconstructed, measured, kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenizers_vq.data.transforms import to_signal, to_uint8
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.baselines import Baselines, pixels_of
from tokenizers_vq.evaluation.condition import Condition
from tokenizers_vq.evaluation.protocol import Protocol as EvaluationProtocol
from tokenizers_vq.evaluation.run import DataLike, Run, file_of
from tokenizers_vq.files import write_atomically
from tokenizers_vq.metrics.base import Score, mean_score
from tokenizers_vq.types import Codes

DEFINITION = (
    "pictures per second of wall time inside encode (pixels to indices) and decode (indices to "
    "clamped pixels) alone; batches of batch_size after one warm-up batch; no loading, no "
    "entropy coding, no metrics"
)
RATES = {  # what is counted of the tokenizer's files: unit, whether more is better
    "n_bytes": ("byte/{}", False),
    "bpp": ("bit/pixel", False),
    "fixed_bytes": ("byte/{}", False),
    "nominal_bits": ("bit/{}", False),
    "nominal_bpp": ("bit/pixel", False),
    "tokens": ("per {}", None),
}


class TokenizerLike(Protocol):
    """What evaluation needs of a tokenizer; ``Tokenizer`` is one."""

    name: str
    prior: Any

    @property
    def sha256(self) -> str:
        """Hex digest of the weights."""

    def encode(self, x: Tensor) -> Codes:
        """Turn pictures ``(B, 3, H, W)`` in [-1, 1] into codes."""

    def decode(self, codes: Codes) -> Tensor:
        """Turn codes into pictures in [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Pictures of one size on their way: what went in, what came out, the files in between."""

    indices: list[int]
    real: Tensor
    fake: Tensor
    codes: Codes
    files: list[bytes]


class ImageRun(Run):
    """One evaluation on pictures; see ``Run``.

    Attributes:
        per: what the units of numbers call an item.
        baselines_of: the class of what the tokenizer is compared with.
    """

    item, per = "picture", "image"
    baselines_of: type[Baselines] = Baselines

    def __init__(
        self,
        tokenizer: TokenizerLike,
        dataset: DataLike,
        protocol: EvaluationProtocol,
        device: str = "cpu",
        weights: Mapping[str, str] | None = None,
        keep: int = 0,
    ) -> None:
        super().__init__(tokenizer, dataset, protocol, device, weights, keep)
        shared = {"resamples": protocol.resamples, "seed": protocol.seed}
        self.own = Condition(protocol.metrics, weights=self.weights, **shared)
        self.baselines = self.baselines_of(protocol, self.weights)
        self.conditions = {"own": self.own, **self.baselines.anchors, **self.baselines.coded}

    def measure(self, unit: Sequence[int], items: Sequence[Tensor]) -> None:
        """Add a batch; pictures of different sizes are reconstructed apart."""
        pairs = zip(unit, items, strict=True)
        for _, group in groupby(pairs, key=lambda pair: pair[1].shape):
            numbers, pictures = zip(*group, strict=True)
            self._add(list(numbers), torch.stack(pictures))

    def numbers(self) -> dict[str, Any]:
        """Return scores, speed, anchors and codecs."""
        psnr, sizes = self.own.values("psnr"), self.own.counts["n_bytes"]
        scores = {**self.own.scores(), **self._rate_scores()}
        return {
            "metrics": {name: dataclasses.asdict(score) for name, score in scores.items()},
            "throughput": self._throughput(),
            "anchors": self.baselines.anchor_values(),
            "baselines": self.baselines.points(psnr),
            "rate_differences": self.baselines.rate_differences(sizes, psnr),
        }

    def write(self, folder: Path, result: Mapping[str, Any]) -> None:
        """Write ``table.md``, and what the report shows of the pictures that were kept."""
        tables = (
            results.metric_table(result), results.codec_table(result), results.rate_table(result),
        )  # fmt: skip
        write_atomically(folder / "table.md", "\n\n".join(filter(None, tables)) + "\n")
        for name, pictures in self.kept.items():
            place = folder / "images" / name.replace("/", "__")
            place.mkdir(parents=True, exist_ok=True)
            for label, data in pictures.items():
                if label == "tokens":
                    np.save(place / "tokens.npy", data.numpy())
                elif label == "file":
                    (place / "picture.tok").write_bytes(data.numpy().tobytes())
                else:
                    self.save_pixels(place, label, pixels_of(data))

    def save_pixels(self, place: Path, name: str, pixels: np.ndarray) -> None:
        """Write a picture ``(H, W, 3)``."""
        Image.fromarray(pixels).save(place / f"{name}.png")

    def _add(self, indices: list[int], real: Tensor) -> None:
        batch, counts = self._reconstruct(indices, real)
        rows = self.own.add(real, batch.fake, batch.codes, **counts)
        compared = self.baselines.update(real, [len(file) for file in batch.files])
        for index, row, codecs in zip(indices, rows, compared, strict=True):
            for verb in ("encode", "decode"):
                del row[verb]
            self.rows.append({"id": self.dataset.ids[index], **row, **codecs})
        self._keep(batch)

    def _reconstruct(
        self, indices: list[int], real: Tensor
    ) -> tuple[Batch, dict[str, list[float]]]:
        """Return a batch, and what its files and verbs cost, picture by picture."""
        x, tokenizer, n = to_signal(real).to(self.device), self.tokenizer, len(real)
        if not self.warm:
            tokenizer.decode(tokenizer.encode(x))
            self.warm = True
        codes, encode = self.timed(tokenizer.encode, x)
        y, decode = self.timed(tokenizer.decode, codes)
        codes = dataclasses.replace(codes, indices=codes.indices.cpu())
        each = [dataclasses.replace(codes, indices=one[None]) for one in codes.indices]
        files = [file_of(one, tokenizer.prior) for one in each]
        pixels = real[0, 0].numel()
        counts: dict[str, list[float]] = {
            "n_bytes": [len(file) for file in files],
            "bpp": [8 * len(file) / pixels for file in files],
            "fixed_bytes": [len(file_of(one, None)) for one in each],
            "nominal_bits": [codes.bits] * n,
            "nominal_bpp": [codes.bits / pixels] * n,
            "tokens": [codes.indices[0].numel()] * n,
            "encode": [encode / n] * n,
            "decode": [decode / n] * n,
        }
        return Batch(indices, real, to_uint8(y).cpu(), codes, files), counts

    def _keep(self, batch: Batch) -> None:
        """Keep what the report shows of the first pictures."""
        for k, index in enumerate(batch.indices):
            if self.is_kept(index):
                codecs = {
                    codec: torch.from_numpy(images[k]).movedim(-1, 0)
                    for codec, images in self.baselines.pictures.items()
                }
                self.kept[self.dataset.ids[index]] = {
                    "original": batch.real[k].clone(),
                    "reconstruction": batch.fake[k].clone(),
                    "tokens": batch.codes.indices[k].clone(),
                    "file": torch.frombuffer(bytearray(batch.files[k]), dtype=torch.uint8),
                    **codecs,
                }

    def _rate_scores(self) -> dict[str, Score]:
        resamples, seed = self.protocol.resamples, self.protocol.seed
        return {
            name: mean_score(
                self.own.counts[name], resamples, seed, unit=unit.format(self.per), higher=higher
            )
            for name, (unit, higher) in RATES.items()
        }

    def _throughput(self) -> dict[str, Any]:
        counts = self.own.counts
        speeds = {
            f"{verb}_{self.per}s_per_second": len(counts[verb]) / max(sum(counts[verb]), 1e-9)
            for verb in ("encode", "decode")
        }
        return {
            **speeds,
            "batch_size": self.protocol.batch_size,
            "device": self.device,
            "threads": torch.get_num_threads(),
            "definition": DEFINITION.replace("picture", self.item),
        }
