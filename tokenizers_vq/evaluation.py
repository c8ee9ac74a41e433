"""Run a protocol over a data set with a tokenizer: one result, samples, pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenizers_vq import results
from tokenizers_vq.baselines import Baselines, build_metrics, pixels_of
from tokenizers_vq.data.transforms import to_signal, to_uint8
from tokenizers_vq.errors import BitstreamError, ConfigError, DataError, MissingExtraError
from tokenizers_vq.metrics.base import Score, mean_score
from tokenizers_vq.protocol import Protocol as EvaluationProtocol
from tokenizers_vq.protocol import load_protocol
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
class _Batch:
    """A batch on its way: what went in, what came out, what it cost."""

    ids: list[str]
    real: Tensor
    fake: Tensor
    codes: Codes
    files: list[bytes]
    fixed: list[int]


def evaluate(
    tokenizer: TokenizerLike,
    dataset: DataLike,
    protocol: str | Mapping[str, Any] | EvaluationProtocol = "image_fast",
    out: str | Path | None = None,
    *,
    data_name: str = "",
    device: str = "cpu",
    weights: Mapping[str, str] | None = None,
    strict: bool = False,
    pictures: int = 24,
) -> dict[str, Any]:
    """Measure a tokenizer on a data set.

    Args:
        tokenizer: as ``tokenizers_vq.load`` returns it.
        dataset: items ``(3, H, W)`` float32 in [-1, 1] with ``ids`` and ``sha256()``.
        protocol: name in ``conf/protocol``, plain data, or a ``Protocol``.
        out: folder for ``result.json``, ``samples.jsonl``, ``table.md`` and the pictures; nothing
            is written without it.
        data_name: printed with the numbers; default: the class of the data set.
        device: where the tokenizer runs.
        weights: local weights files by key, for the metrics that need them.
        strict: raise when a metric is skipped.
        pictures: how many pictures are kept in ``out`` for the report.

    Returns:
        The result as plain data: ``schema``, ``protocol``, ``tokenizer``, ``data``, ``seed``,
        ``environment``, ``metrics`` (scores by name), ``throughput``, ``anchors``, ``baselines``.

    Raises:
        ConfigError: an unknown protocol, metric or option.
        DataError: the data set is empty.
        BitstreamError: a ``.tok`` file did not give back the indices it was made from.
        MissingExtraError: ``strict`` and a metric could not be computed.
    """
    chosen = load_protocol(protocol)
    run = _Run(tokenizer, dataset, chosen, device, dict(weights or {}))
    folder = None if out is None else Path(out)
    start = time.perf_counter()
    for batch in run.batches():
        run.measure(batch)
        if folder is not None:
            run.keep(batch, folder, pictures)
    result = run.result(data_name or type(dataset).__name__)
    result["seconds"] = round(time.perf_counter() - start, 3)
    if folder is not None:
        results.write_rows(folder / "samples.jsonl", run.rows)
        tables = (results.metric_table(result), results.codec_table(result))
        results.write_text(folder / "table.md", "\n\n".join(filter(None, tables)) + "\n")
        results.write_json(folder / "result.json", result)  # last: it says the rest is complete
    missing = [f"{k}: {v['reason']}" for k, v in result["metrics"].items() if v["reason"]]
    if strict and missing:
        raise MissingExtraError(
            f"evaluate: expected every metric with strict; got {len(missing)} skipped "
            f"({'; '.join(missing)}). Give the weights, or leave strict out."
        )
    return result


class _Run:
    """The state of one evaluation."""

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
        self.baselines = Baselines(protocol, weights)
        self.rows: list[dict[str, Any]] = []
        self.rates: dict[str, list[float]] = {}
        self.seconds = {"encode": 0.0, "decode": 0.0}
        self.warm = False
        self.kept = 0

    def batches(self) -> Iterator[_Batch]:
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

    def measure(self, batch: _Batch) -> None:
        """Add a batch to every metric: the tokenizer's, the anchors', the codecs'."""
        for metric in self.metrics:
            metric.update(batch.real, batch.fake, batch.codes)
        self._add_rates(batch)
        compared = self.baselines.update(batch.real, [len(file) for file in batch.files])
        for row, one in zip(self.rows[-len(batch.ids) :], compared, strict=True):
            row.update(one)

    def keep(self, batch: _Batch, folder: Path, limit: int) -> None:
        """Write what the report shows of the first ``limit`` pictures."""
        for k, name in enumerate(batch.ids):
            if self.kept >= limit:
                return
            place = folder / "images" / name.replace("/", "__")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels_of(batch.real[k])).save(place / "original.png")
            Image.fromarray(pixels_of(batch.fake[k])).save(place / "reconstruction.png")
            np.save(place / "tokens.npy", batch.codes.indices[k].cpu().numpy())
            (place / "picture.tok").write_bytes(batch.files[k])
            for codec in self.protocol.codecs:
                coded = self.baselines.pictures[codec][k]
                Image.fromarray(coded).save(place / f"{codec}.png")
            self.kept += 1

    def result(self, data_name: str) -> dict[str, Any]:
        """Return everything as plain data."""
        protocol = self.protocol
        chosen = [self.dataset.ids[index] for index in self._chosen()]
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
            "baselines": self.baselines.points([row["psnr"] for row in self.rows]),
        }

    def _chosen(self) -> list[int]:
        total = len(self.dataset.ids)
        if not total:
            raise DataError("evaluate: expected at least one picture; got none. Check the folder.")
        limit = self.protocol.limit
        if limit is None or limit >= total:
            return list(range(total))
        generator = torch.Generator().manual_seed(self.protocol.seed)
        return sorted(torch.randperm(total, generator=generator)[:limit].tolist())

    def _reconstruct(self, items: Sequence[tuple[str, Tensor]]) -> _Batch:
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
        return _Batch([name for name, _ in items], real, fake, codes, files, fixed)

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

    def _add_rates(self, batch: _Batch) -> None:
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
            "n_bytes": ("byte/image", False),
            "bpp": ("bit/pixel", False),
            "fixed_bytes": ("byte/image", False),
            "nominal_bits": ("bit/image", False),
            "nominal_bpp": ("bit/pixel", False),
            "tokens": ("per image", None),
        }
        resamples, seed = self.protocol.resamples, self.protocol.seed
        return {
            name: mean_score(self.rates[name], resamples, seed, unit=unit, higher=higher)
            for name, (unit, higher) in units.items()
        }

    def _throughput(self) -> dict[str, Any]:
        n = len(self.rows)
        return {
            "encode_images_per_second": n / max(self.seconds["encode"], 1e-9),
            "decode_images_per_second": n / max(self.seconds["decode"], 1e-9),
            "batch_size": self.protocol.batch_size,
            "device": self.device,
            "threads": torch.get_num_threads(),
            "definition": DEFINITION,
        }


def dataset_from(name: str) -> tuple[DataLike, str]:
    """Return the pictures of a folder, or the held-out part of a data set in ``conf/data``.

    Raises:
        ConfigError: there is neither such a folder nor such a data set.
    """
    from tokenizers_vq.configs import read_config
    from tokenizers_vq.data.images import ImageFolder

    if Path(name).is_dir():
        return ImageFolder(name), Path(name).resolve().name
    config = read_config("data", name)
    built: DataLike = _instantiate(config["val"], name)
    return built, name


def _instantiate(config: Any, name: str) -> Any:
    """Build a data set from ``_target_`` data; only classes of ``tokenizers_vq.data``."""
    if isinstance(config, str) and config.startswith("${"):
        raise ConfigError(
            f"data '{name}': expected a data set without open values; got {config}. "
            "Give the folder of pictures instead."
        )
    if isinstance(config, list):
        return [_instantiate(one, name) for one in config]
    if not isinstance(config, dict):
        return config
    options = {k: _instantiate(v, name) for k, v in config.items() if k != "_target_"}
    if "_target_" not in config:
        return options
    module, _, attribute = str(config["_target_"]).rpartition(".")
    if not module.startswith("tokenizers_vq.data."):
        raise ConfigError(f"data '{name}': expected a class of tokenizers_vq.data; got {module}.")
    return getattr(import_module(module), attribute)(**options)


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
