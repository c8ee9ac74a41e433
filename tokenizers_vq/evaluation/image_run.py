"""The state of one evaluation: batches reconstructed, measured, kept."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenizers_vq.data.transforms import to_signal, to_uint8
from tokenizers_vq.errors import BitstreamError, DataError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.baselines import Baselines, build_metrics, pixels_of
from tokenizers_vq.evaluation.protocol import Protocol as EvaluationProtocol
from tokenizers_vq.metrics.base import Score, mean_score
from tokenizers_vq.types import Codes

DEFINITION = (
    "pictures per second of wall time inside encode (pixels to indices) and decode (indices to "
    "clamped pixels) alone; batches of batch_size after one warm-up batch; no loading, no "
    "entropy coding, no metrics"
)


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


class DataLike(Protocol):
    """What evaluation needs of a data set; ``SignalDataset`` is one."""

    ids: list[str]

    def __getitem__(self, index: int) -> Tensor:
        """Return a picture ``(3, H, W)`` in [-1, 1]."""

    def sha256(self) -> str:
        """Hex digest of the data."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch on its way: what went in, what came out, what it cost."""

    ids: list[str]
    real: Tensor
    fake: Tensor
    codes: Codes
    files: list[bytes]
    fixed: list[int]


class EvaluationRun:
    """The state of one evaluation.

    Attributes:
        unit: what is counted; ``items``, more than one of it.
        baselines_of: the class of what the tokenizer is compared with.
    """

    unit, items = "image", "pictures"
    baselines_of: type[Baselines] = Baselines

    def __init__(
        self,
        tokenizer: TokenizerLike,
        dataset: DataLike,
        protocol: EvaluationProtocol,
        device: str,
        weights: dict[str, str],
    ) -> None:
        self.tokenizer, self.dataset, self.protocol = tokenizer, dataset, protocol
        self.device, self.weights = device, weights
        self.metrics = build_metrics(protocol.metrics, protocol, weights)
        self.baselines = self.baselines_of(protocol, weights)
        self.rows: list[dict[str, Any]] = []
        self.rates: dict[str, list[float]] = {}
        self.seconds = {"encode": 0.0, "decode": 0.0}
        self.warm = False
        self.kept = 0

    @property
    def total(self) -> int:
        """How many pictures are measured."""
        return len(self._chosen())

    def batches(self) -> Iterator[Batch]:
        """Yield reconstructed batches; pictures of different sizes never share one."""
        pending: list[tuple[str, Tensor]] = []
        for index in self._chosen():
            pixels = self.protocol.prepare(self.dataset[index])
            full = len(pending) == self.protocol.batch_size
            if pending and (full or pending[0][1].shape != pixels.shape):
                yield self._reconstruct(pending)
                pending = []
            pending.append((self.dataset.ids[index], pixels))
        yield self._reconstruct(pending)

    def measure(self, batch: Batch) -> None:
        """Add a batch to every metric: the tokenizer's, the anchors', the codecs'."""
        for metric in self.metrics:
            metric.update(batch.real, batch.fake, batch.codes)
        self._add_rates(batch)
        compared = self.baselines.update(batch.real, [len(file) for file in batch.files])
        for row, one in zip(self.rows[-len(batch.ids) :], compared, strict=True):
            row.update(one)

    def keep(self, batch: Batch, folder: Path, limit: int) -> None:
        """Write what the report shows of the first ``limit`` pictures."""
        for k, name in enumerate(batch.ids):
            if self.kept >= limit:
                return
            place = folder / "images" / name.replace("/", "__")
            place.mkdir(parents=True, exist_ok=True)
            self.keep_pixels(place, "original", pixels_of(batch.real[k]))
            self.keep_pixels(place, "reconstruction", pixels_of(batch.fake[k]))
            np.save(place / "tokens.npy", batch.codes.indices[k].cpu().numpy())
            (place / "picture.tok").write_bytes(batch.files[k])
            for codec, coded in self.baselines.pictures.items():
                self.keep_pixels(place, codec, coded[k])
            self.kept += 1

    def keep_pixels(self, place: Path, name: str, pixels: np.ndarray) -> None:
        """Write a picture ``(H, W, 3)``."""
        Image.fromarray(pixels).save(place / f"{name}.png")

    def result(self, data_name: str) -> dict[str, Any]:
        """Return everything as plain data."""
        protocol = self.protocol
        chosen = [self.dataset.ids[index] for index in self._chosen()]
        psnr = [row["psnr"] for row in self.rows]
        scores: dict[str, Score] = {}
        for metric in self.metrics:
            scores |= metric.compute()
        return {
            "schema": results.SCHEMA,
            "protocol": {
                "name": protocol.name,
                "hash": protocol.hash,
                "config": dataclasses.asdict(protocol),
            },
            "tokenizer": self._identity(),
            "data": {
                "name": data_name,
                "sha256": self.dataset.sha256(),
                "n": len(chosen),
                **({} if self.items == "pictures" else {"unit": self.items}),
                "ids_sha256": hashlib.sha256("\n".join(chosen).encode()).hexdigest(),
            },
            "seed": protocol.seed,
            "environment": results.environment(self.device),
            "metrics": {
                name: dataclasses.asdict(score)
                for name, score in {**scores, **self._rate_scores()}.items()
            },
            "throughput": self._throughput(),
            "anchors": self.baselines.anchor_values(),
            "baselines": self.baselines.points(psnr),
            "rate_differences": self.baselines.rate_differences(self.rates["n_bytes"], psnr),
        }

    def _chosen(self) -> list[int]:
        total = len(self.dataset.ids)
        if not total:
            raise DataError(
                f"evaluate: expected at least one {self.items[:-1]}; got none. Check the folder."
            )
        limit = self.protocol.limit
        if limit is None or limit >= total:
            return list(range(total))
        generator = torch.Generator().manual_seed(self.protocol.seed)
        return sorted(torch.randperm(total, generator=generator)[:limit].tolist())

    def _reconstruct(self, items: Sequence[tuple[str, Tensor]]) -> Batch:
        real = torch.stack([pixels for _, pixels in items])
        x = to_signal(real).to(self.device)
        if not self.warm:
            self.tokenizer.decode(self.tokenizer.encode(x))
            self.warm = True
        codes = self._timed("encode", self.tokenizer.encode, x)
        fake = to_uint8(self._timed("decode", self.tokenizer.decode, codes)).cpu()
        codes = dataclasses.replace(codes, indices=codes.indices.cpu())
        files = [_file(_one(codes, k), self.tokenizer.prior) for k in range(len(items))]
        fixed = [len(_file(_one(codes, k), None)) for k in range(len(items))]
        return Batch([name for name, _ in items], real, fake, codes, files, fixed)

    def _timed(self, what: str, function: Any, argument: Any) -> Any:
        self._wait()
        start = time.perf_counter()
        value = function(argument)
        self._wait()
        self.seconds[what] += time.perf_counter() - start
        return value

    def _wait(self) -> None:
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)

    def _add_rates(self, batch: Batch) -> None:
        pixels = batch.real[0, 0].numel()
        tokens = batch.codes.indices[0].numel()
        for k, name in enumerate(batch.ids):
            size = len(batch.files[k])
            rates = {
                "n_bytes": size,
                "bpp": 8 * size / pixels,
                "fixed_bytes": batch.fixed[k],
                "nominal_bits": batch.codes.bits,
                "nominal_bpp": batch.codes.bits / pixels,
                "tokens": tokens,
            }
            for key, value in rates.items():
                self.rates.setdefault(key, []).append(float(value))
            row = {"id": name, **rates}
            for metric in self.metrics:
                values = metric.rows().items()
                row |= {key: column[len(self.rows)] for key, column in values}
            self.rows.append(row)

    def _identity(self) -> dict[str, Any]:
        quantizer = getattr(self.tokenizer, "quantizer", None)
        parameters = getattr(self.tokenizer, "parameters", None)
        return {
            "name": self.tokenizer.name,
            "sha256": self.tokenizer.sha256,
            "codebook_sizes": list(getattr(quantizer, "codebook_sizes", ())),
            "parameters": sum(p.numel() for p in parameters()) if parameters else None,
            "entropy_coded": self.tokenizer.prior is not None,
        }

    def _rate_scores(self) -> dict[str, Score]:
        units = {
            "n_bytes": (f"byte/{self.unit}", False),
            "bpp": ("bit/pixel", False),
            "fixed_bytes": (f"byte/{self.unit}", False),
            "nominal_bits": (f"bit/{self.unit}", False),
            "nominal_bpp": ("bit/pixel", False),
            "tokens": (f"per {self.unit}", None),
        }
        resamples, seed = self.protocol.resamples, self.protocol.seed
        return {
            name: mean_score(self.rates[name], resamples, seed, unit=unit, higher=higher)
            for name, (unit, higher) in units.items()
        }

    def _throughput(self) -> dict[str, Any]:
        n = len(self.rows)
        return {
            f"encode_{self.unit}s_per_second": n / max(self.seconds["encode"], 1e-9),
            f"decode_{self.unit}s_per_second": n / max(self.seconds["decode"], 1e-9),
            "batch_size": self.protocol.batch_size,
            "device": self.device,
            "threads": torch.get_num_threads(),
            "definition": DEFINITION.replace("pictures", self.items),
        }


def _file(codes: Codes, prior: Any) -> bytes:
    """Return the ``.tok`` file of one picture, after reading it back."""
    from tokenizers_vq.bitstream import from_bytes, to_bytes

    data = to_bytes(codes, prior)
    if not torch.equal(from_bytes(data, prior).indices, codes.indices):
        raise BitstreamError(
            "evaluate: expected the indices a .tok file was made from; got others. "
            "Report this with the picture: its size cannot be trusted."
        )
    return data


def _one(codes: Codes, k: int) -> Codes:
    return dataclasses.replace(codes, indices=codes.indices[k : k + 1])
