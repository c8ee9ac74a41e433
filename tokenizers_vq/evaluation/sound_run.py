"""The state of one evaluation of sound: clips coded in every way, measured, counted."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.evaluation import results, sound_codecs
from tokenizers_vq.evaluation.image_run import _file
from tokenizers_vq.evaluation.sound_protocol import ANCHORS, SoundProtocol, pcm16
from tokenizers_vq.functional.resampling import resample
from tokenizers_vq.metrics.base import Metric, Score
from tokenizers_vq.metrics.speech import ratio_score

DEFINITION = (
    "seconds inside encode (samples to indices) and decode (indices to samples) per second of "
    "sound, wall time, one clip at a time after one warm-up clip, one thread; no loading, no "
    "resampling, no entropy coding, no metrics"
)
COST = (
    "CPU seconds of all threads inside update, resampling included, per second of reconstruction; "
    "the first clip is left out; what is computed of an original once counts where it happens"
)
SHORTENED = ("frequencies",)  # of a score's detail, left out below the full depth


class Condition:
    """One way to code every clip: its metrics, its bytes, its seconds.

    Args:
        protocol: names the metrics.
        weights: local weights files by key.
        codebook: whether the metrics of the codes are measured, too.
    """

    def __init__(
        self, protocol: SoundProtocol, weights: Mapping[str, str], *, codebook: bool
    ) -> None:
        configs = [one for one in protocol.metrics if codebook or one["name"] != "codebook"]
        self.metrics: dict[str, Metric] = {
            config["name"]: registry.build(
                "metric",
                config,
                weights=weights,
                sample_rate=protocol.sample_rate,
                resamples=protocol.resamples,
                seed=protocol.seed,
            )
            for config in configs
        }
        self.resamples, self.seed = protocol.resamples, protocol.seed
        self.counts: dict[str, list[float]] = {}
        self.cost: dict[str, list[float]] = {}

    def add(self, real: Tensor, fake: Tensor, codes: Any = None, **counts: float) -> None:
        """Add a clip ``(1, T)``, what became of it, and what that cost."""
        for name, metric in self.metrics.items():
            start = time.process_time()
            metric.update(real[None], fake[None], codes)
            self.cost.setdefault(name, []).append(time.process_time() - start)
        for name, count in counts.items():
            self.counts.setdefault(name, []).append(float(count))

    def scores(self) -> dict[str, Score]:
        """Return quality by name, then rates, pooled over the clips."""
        scores: dict[str, Score] = {}
        for metric in self.metrics.values():
            scores |= metric.compute()
        for name, (count, factor, unit) in RATES.items():
            if count in self.counts:
                column = [factor * one for one in self.counts[count]]
                scores[name] = ratio_score(
                    column, self.counts["seconds"], self.resamples, self.seed, unit=unit
                )
        return scores

    def row(self) -> dict[str, float | None]:
        """Return the numbers of the clip that was added last."""
        columns = [one.rows().items() for one in self.metrics.values()] + [self.counts.items()]
        row = {name: values[-1] for items in columns for name, values in items}
        return {name: value if math.isfinite(value) else None for name, value in row.items()}

    def seconds_per_second(self, what: str) -> float:
        """Return the time of one verb per second of sound."""
        return sum(self.counts[what]) / max(sum(self.counts["seconds"]), 1e-9)


RATES = {  # score: what is summed, factor, unit; each divided by the seconds of sound
    "kbps": ("n_bytes", 8e-3, "kb/s"),
    "payload_kbps": ("payload_bytes", 8e-3, "kb/s"),
    "fixed_kbps": ("fixed_bytes", 8e-3, "kb/s"),
    "nominal_kbps": ("nominal_bits", 1e-3, "kb/s"),
    "tokens_per_second": ("tokens", 1.0, "1/s"),
}


class SoundRun:
    """The state of one evaluation.

    Args:
        tokenizer: what is measured; None measures the codecs alone.
        dataset: clips ``(C, T)`` at the protocol's rate, with ``ids`` and ``sha256()``.
        protocol: how.
        device: where the tokenizer runs.
        weights: local weights files by key.

    Raises:
        ConfigError: the tokenizer is not one of sound.
        DataError: there is no clip.
    """

    def __init__(
        self,
        tokenizer: Any,
        dataset: Any,
        protocol: SoundProtocol,
        device: str,
        weights: Mapping[str, str],
    ) -> None:
        self.tokenizer, self.dataset, self.protocol = tokenizer, dataset, protocol
        self.device = device
        self.chosen = _chosen(len(dataset.ids), protocol)
        self.depths = [] if tokenizer is None else _depths(tokenizer, protocol)
        self.of_depth = {k: Condition(protocol, weights, codebook=True) for k in self.depths}
        plain = {name: Condition(protocol, weights, codebook=False) for name in protocol.anchors}
        self.anchors = plain
        self.codecs = {
            (codec, setting): Condition(protocol, weights, codebook=False)
            for codec, settings in protocol.codecs.items()
            if not sound_codecs.missing(codec)
            for setting in settings
        }
        self.rows: list[dict[str, Any]] = []
        self.sounds: dict[str, dict[str, Tensor]] = {}
        self.warm = False

    def clips(self) -> Iterator[tuple[int, str, Tensor]]:
        """Yield number, name and samples ``(1, T)`` of every chosen clip."""
        for index in self.chosen:
            yield index, self.dataset.ids[index], self.protocol.prepare(self.dataset[index])

    def measure(self, index: int, name: str, clip: Tensor, *, keep: bool) -> None:
        """Code one clip in every way and add it to every metric."""
        row: dict[str, Any] = {"id": name, "seconds": clip.shape[1] / self.protocol.sample_rate}
        sounds = {"original": clip}
        seconds = {"seconds": row["seconds"]}
        for depth, condition in self.of_depth.items():
            fake = self._tokenized(depth, condition, clip, seconds)
            label = _label(depth)
            row[label], sounds[label] = condition.row(), fake
        for anchor, condition in self.anchors.items():
            fake = ANCHORS[anchor](clip, self.protocol.sample_rate, self.protocol.seed + index)
            condition.add(clip, pcm16(fake), **seconds)
        for (codec, setting), condition in self.codecs.items():
            coded = sound_codecs.encode(clip, self.protocol.sample_rate, codec, setting)
            sizes = {"n_bytes": coded.n_bytes, "payload_bytes": coded.payload_bytes}
            condition.add(clip, pcm16(coded.clip), **seconds, **sizes)
            label = sound_codecs.label(codec, setting)
            row[label], sounds[label] = condition.row(), pcm16(coded.clip)
        self.rows.append(row)
        if keep:
            self.sounds[name] = sounds

    def result(self, data_name: str) -> dict[str, Any]:
        """Return everything as plain data."""
        protocol, chosen = self.protocol, [self.dataset.ids[index] for index in self.chosen]
        full = self.of_depth.get(self.depths[-1]) if self.depths else None
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
                "unit": "clips",
                "seconds": round(sum(row["seconds"] for row in self.rows), 3),
                "ids_sha256": hashlib.sha256("\n".join(chosen).encode()).hexdigest(),
                "skipped": dict(getattr(self.dataset, "skipped", {})),
            },
            "seed": protocol.seed,
            "environment": results.environment(self.device),
            "metrics": {} if full is None else _plain(full.scores()),
            "throughput": {} if full is None else self._throughput(full),
            "depths": {
                _label(depth): {
                    "codebooks": depth,
                    "metrics": _plain(one.scores(), short=True),
                    "throughput": self._throughput(one),
                }
                for depth, one in self.of_depth.items()
            },
            "anchors": {k: _plain(one.scores(), short=True) for k, one in self.anchors.items()},
            "baselines": self._baselines(),
            "metric_cost": self._metric_cost(),
        }

    def _tokenized(
        self, depth: int, condition: Condition, clip: Tensor, seconds: Mapping[str, float]
    ) -> Tensor:
        """Return the reconstruction ``(1, T)`` by the first ``depth`` codebooks; add it."""
        rate = self.tokenizer.signal.sample_rate or self.protocol.sample_rate
        x = resample(clip, self.protocol.sample_rate, rate).clamp(-1, 1)
        x = x.expand(self.tokenizer.signal.channels, -1)[None].to(self.device)
        options = {} if depth == self.depths[-1] else {"num_codebooks": depth}
        with _one_thread():
            if not self.warm:
                self.tokenizer.decode(self.tokenizer.encode(x))
                self.warm = True
            codes, encode = self._timed(self.tokenizer.encode, x, options)
            y, decode = self._timed(self.tokenizer.decode, codes, {})
        codes = dataclasses.replace(codes, indices=codes.indices.cpu())
        y = resample(y[0].float().cpu().mean(0, keepdim=True), rate, self.protocol.sample_rate)
        fake = pcm16(torch.nn.functional.pad(y, (0, clip.shape[1]))[:, : clip.shape[1]])
        condition.add(
            clip,
            fake,
            codes,
            n_bytes=len(_file(codes, self.tokenizer.prior)),
            fixed_bytes=len(_file(codes, None)),
            nominal_bits=codes.bits,
            tokens=codes.indices[0].numel(),
            encode=encode,
            decode=decode,
            **seconds,
        )
        return fake

    def _timed(self, verb: Any, argument: Any, options: Mapping[str, Any]) -> tuple[Any, float]:
        self._wait()
        start = time.perf_counter()
        value = verb(argument, **options)
        self._wait()
        return value, time.perf_counter() - start

    def _wait(self) -> None:
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)

    def _throughput(self, condition: Condition) -> dict[str, Any]:
        return {
            "encode_real_time_factor": condition.seconds_per_second("encode"),
            "decode_real_time_factor": condition.seconds_per_second("decode"),
            "device": self.device,
            "threads": 1,
            "definition": DEFINITION,
        }

    def _baselines(self) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for codec in self.protocol.codecs:
            reason = sound_codecs.missing(codec)
            table[codec] = [{"status": "skipped", "reason": reason}] if reason else []
        for (codec, setting), condition in self.codecs.items():
            metrics = _plain(condition.scores(), short=True)
            label = sound_codecs.label(codec, setting)
            table[codec].append({"setting": setting, "label": label, "metrics": metrics})
        return table

    def _metric_cost(self) -> dict[str, Any]:
        """Return what each metric costs per second of sound, its first clip (imports) left out."""
        conditions = [*self.of_depth.values(), *self.anchors.values(), *self.codecs.values()]
        table: dict[str, float] = {}
        for name in {name: None for one in conditions for name in one.cost}:
            spent = sum(sum(one.cost.get(name, [])[1:]) for one in conditions)
            heard = sum(sum(one.counts["seconds"][1:]) for one in conditions if name in one.cost)
            if heard:
                table[name] = spent / heard
        return {"cpu_seconds_per_second": table, "definition": COST}

    def _identity(self) -> dict[str, Any]:
        if self.tokenizer is None:
            return {"name": "classic codecs", "sha256": "", "entropy_coded": False}
        quantizer = getattr(self.tokenizer, "quantizer", None)
        parameters = getattr(self.tokenizer, "parameters", None)
        return {
            "name": self.tokenizer.name,
            "sha256": self.tokenizer.sha256,
            "codebook_sizes": list(getattr(quantizer, "codebook_sizes", ())),
            "parameters": sum(p.numel() for p in parameters()) if parameters else None,
            "entropy_coded": self.tokenizer.prior is not None,
            "sample_rate": self.tokenizer.signal.sample_rate,
        }


def _chosen(total: int, protocol: SoundProtocol) -> list[int]:
    if not total:
        raise DataError("evaluate: expected at least one clip; got none. Check the folder.")
    if protocol.limit is None or protocol.limit >= total:
        return list(range(total))
    generator = torch.Generator().manual_seed(protocol.seed)
    return sorted(torch.randperm(total, generator=generator)[: protocol.limit].tolist())


def _depths(tokenizer: Any, protocol: SoundProtocol) -> list[int]:
    """Return the numbers of codebooks to measure, all of them last."""
    signal = getattr(tokenizer, "signal", None)
    if getattr(signal, "kind", None) != "audio":
        raise ConfigError(
            f"evaluate: expected a tokenizer of sound for protocol '{protocol.name}'; got one of "
            f"{getattr(signal, 'kind', 'no known signal')}. Choose a protocol of its kind."
        )
    quantizer = getattr(tokenizer, "quantizer", None)
    total = len(getattr(quantizer, "codebook_sizes", ())) or 1
    probe = torch.zeros(1, 1, dtype=torch.int64)
    complete = (
        None if getattr(quantizer, "on_grid", False) else getattr(quantizer, "complete", None)
    )
    prefixes = complete is not None and complete(probe).shape[-1] == total
    return [depth for depth in sorted(set(protocol.depths)) if prefixes and depth < total] + [total]


def _plain(scores: Mapping[str, Score], *, short: bool = False) -> dict[str, Any]:
    table = {name: dataclasses.asdict(score) for name, score in scores.items()}
    if short:
        for score in table.values():
            score["detail"] = {k: v for k, v in score["detail"].items() if k not in SHORTENED}
    return table


def _label(depth: int) -> str:
    return f"{depth} codebook{'s' if depth > 1 else ''}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core, and put the number of threads back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
