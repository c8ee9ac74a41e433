"""The state of one evaluation of sound: clips coded in every way, measured, counted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import results, sound_codecs
from tokenizers_vq.evaluation.condition import Condition
from tokenizers_vq.evaluation.run import Run, file_of
from tokenizers_vq.evaluation.sound_protocol import ANCHORS, SoundProtocol, pcm16
from tokenizers_vq.files import write_atomically
from tokenizers_vq.functional.resampling import resample
from tokenizers_vq.metrics.base import Score
from tokenizers_vq.metrics.speech import ratio_score
from tokenizers_vq.types import Codes

DEFINITION = (
    "seconds inside encode (samples to indices) and decode (indices to samples) per second of "
    "sound, wall time, one clip at a time after one warm-up clip, one thread; no loading, no "
    "resampling, no entropy coding, no metrics"
)
COST = (
    "CPU seconds of all threads inside update, resampling included, per second of reconstruction; "
    "the first clip is left out; what is computed of an original once counts where it happens"
)
KEPT = 3  # clips that can be listened to in the report
SHORTENED = ("frequencies",)  # of a score's detail, left out below the full depth


RATES = {  # score: what is summed, factor, unit; each divided by the seconds of sound
    "kbps": ("n_bytes", 8e-3, "kb/s"),
    "payload_kbps": ("payload_bytes", 8e-3, "kb/s"),
    "fixed_kbps": ("fixed_bytes", 8e-3, "kb/s"),
    "nominal_kbps": ("nominal_bits", 1e-3, "kb/s"),
    "tokens_per_second": ("tokens", 1.0, "1/s"),
}


class SoundRun(Run):
    """One evaluation on sound; see ``Run``.

    Args:
        tokenizer: what is measured; None measures the codecs alone.
        dataset: clips ``(C, T)`` at the protocol's rate, with ``ids`` and ``sha256()``.
        protocol: how.
        device: where the tokenizer runs.
        weights: local weights files by key.
        keep: how many clips are kept to be listened to.

    Raises:
        ConfigError: the tokenizer is not one of sound.
        DataError: there is no clip.
    """

    item = "clip"

    def __init__(
        self,
        tokenizer: Any,
        dataset: Any,
        protocol: SoundProtocol,
        device: str = "cpu",
        weights: Mapping[str, str] | None = None,
        keep: int = 0,
    ) -> None:
        super().__init__(tokenizer, dataset, protocol, device, weights, keep)
        self.depths = [] if tokenizer is None else _depths(tokenizer, protocol)
        self.of_depth = {depth: self._condition(codebook=True) for depth in self.depths}
        self.anchors = {name: self._condition(codebook=False) for name in protocol.anchors}
        self.codecs = {
            (codec, setting): self._condition(codebook=False)
            for codec, settings in protocol.codecs.items()
            if not sound_codecs.missing(codec)
            for setting in settings
        }
        self.conditions = {**self.of_depth, **self.anchors, **self.codecs}

    def measure(self, unit: Sequence[int], items: Sequence[Tensor]) -> None:
        """Add clips ``(1, T)``, each by itself."""
        for index, clip in zip(unit, items, strict=True):
            self._add(index, self.dataset.ids[index], clip)

    def identity(self) -> dict[str, Any]:
        """Return what was measured."""
        if self.tokenizer is None:
            return {"name": "classic codecs", "sha256": "", "entropy_coded": False}
        return {**super().identity(), "sample_rate": self.tokenizer.signal.sample_rate}

    def data_facts(self) -> dict[str, Any]:
        """Return how much sound there was, and which files could not be used."""
        return {
            "unit": "clips",
            "seconds": round(sum(row["seconds"] for row in self.rows), 3),
            "skipped": dict(getattr(self.dataset, "skipped", {})),
        }

    def numbers(self) -> dict[str, Any]:
        """Return scores and speed by depth, anchors, codecs, and what the metrics cost."""
        full = self.of_depth.get(self.depths[-1]) if self.depths else None
        return {
            "metrics": {} if full is None else _plain(self._scores(full)),
            "throughput": {} if full is None else self._throughput(full),
            "depths": {
                _label(depth): {
                    "codebooks": depth,
                    "metrics": _plain(self._scores(one), short=True),
                    "throughput": self._throughput(one),
                }
                for depth, one in self.of_depth.items()
            },
            "anchors": {
                name: _plain(self._scores(one), short=True) for name, one in self.anchors.items()
            },
            "baselines": self._baselines(),
            "metric_cost": self._metric_cost(),
        }

    def missing(self, result: Mapping[str, Any]) -> list[str]:
        """Return the metrics and codecs a result lacks, each with its reason."""
        return super().missing(result) + [
            f"{codec}: {point['reason']}"
            for codec, points in result["baselines"].items()
            for point in points
            if "reason" in point
        ]

    def write(self, folder: Path, result: Mapping[str, Any]) -> None:
        """Write ``table.md`` and the clips that were kept."""
        import soundfile

        last = results.metric_table(result) if result["metrics"] else results.footnote(result)
        tables = (results.sound_table(result), last)
        write_atomically(folder / "table.md", "\n\n".join(filter(None, tables)) + "\n")
        for number, (name, sounds) in enumerate(self.kept.items()):
            place = folder / "sounds" / f"{number:02d}"
            place.mkdir(parents=True, exist_ok=True)
            for k, sound in enumerate(sounds.values()):
                path, rate = place / f"{k:02d}.flac", self.protocol.sample_rate
                soundfile.write(path, sound[0].numpy(), rate, subtype="PCM_16")
            write_atomically(place / "names.json", json.dumps({"id": name, "sounds": list(sounds)}))

    def _condition(self, *, codebook: bool) -> Condition:
        protocol = self.protocol
        return Condition(
            [one for one in protocol.metrics if codebook or one["name"] != "codebook"],
            weights=self.weights,
            sample_rate=protocol.sample_rate,
            resamples=protocol.resamples,
            seed=protocol.seed,
        )

    def _add(self, index: int, name: str, clip: Tensor) -> None:
        """Code one clip in every way and add it to every metric."""
        protocol = self.protocol
        seconds = clip.shape[1] / protocol.sample_rate
        row: dict[str, Any] = {"id": name, "seconds": seconds}
        sounds = {"original": clip}

        def add(condition: Condition, fake: Tensor, codes: Any = None, **counts: float) -> Any:
            columns = {key: [count] for key, count in {**counts, "seconds": seconds}.items()}
            return condition.add(clip[None], fake[None], codes, **columns)[0]

        for depth, condition in self.of_depth.items():
            label = _label(depth)
            sounds[label], codes, counts = self._tokenized(depth, clip)
            row[label] = add(condition, sounds[label], codes, **counts)
        for anchor, condition in self.anchors.items():
            fake = ANCHORS[anchor](clip, protocol.sample_rate, protocol.seed + index)
            add(condition, pcm16(fake))
        for (codec, setting), condition in self.codecs.items():
            label = sound_codecs.label(codec, setting)
            coded = sound_codecs.encode(clip, protocol.sample_rate, codec, setting)
            sounds[label] = pcm16(coded.clip)
            sizes = {"n_bytes": coded.n_bytes, "payload_bytes": coded.payload_bytes}
            row[label] = add(condition, sounds[label], **sizes)
        self.rows.append(row)
        if self.is_kept(index):
            self.kept[name] = sounds

    def _tokenized(self, depth: int, clip: Tensor) -> tuple[Tensor, Codes, dict[str, float]]:
        """Return the reconstruction ``(1, T)`` by the first codebooks, its codes and its counts."""
        tokenizer = self.tokenizer
        rate = tokenizer.signal.sample_rate or self.protocol.sample_rate
        x = resample(clip, self.protocol.sample_rate, rate).clamp(-1, 1)
        x = x.expand(tokenizer.signal.channels, -1)[None].to(self.device)
        options = {} if depth == self.depths[-1] else {"num_codebooks": depth}
        with _one_thread():
            if not self.warm:
                tokenizer.decode(tokenizer.encode(x))
                self.warm = True
            codes, encode = self.timed(tokenizer.encode, x, **options)
            y, decode = self.timed(tokenizer.decode, codes)
        codes = dataclasses.replace(codes, indices=codes.indices.cpu())
        y = resample(y[0].float().cpu().mean(0, keepdim=True), rate, self.protocol.sample_rate)
        fake = pcm16(torch.nn.functional.pad(y, (0, clip.shape[1]))[:, : clip.shape[1]])
        counts = {
            "n_bytes": len(file_of(codes, tokenizer.prior)),
            "fixed_bytes": len(file_of(codes, None)),
            "nominal_bits": codes.bits,
            "tokens": codes.indices[0].numel(),
            "encode": encode,
            "decode": decode,
        }
        return fake, codes, counts

    def _scores(self, condition: Condition) -> dict[str, Score]:
        """Return quality by name, then rates, pooled over the clips."""
        scores, counts = condition.scores(), condition.counts
        draws, seed = self.protocol.resamples, self.protocol.seed
        for name, (count, factor, unit) in RATES.items():
            if count in counts:
                column = [factor * one for one in counts[count]]
                scores[name] = ratio_score(column, counts["seconds"], draws, seed, unit=unit)
        return scores

    def _throughput(self, condition: Condition) -> dict[str, Any]:
        counts = condition.counts
        heard = max(sum(counts["seconds"]), 1e-9)
        return {
            "encode_real_time_factor": sum(counts["encode"]) / heard,
            "decode_real_time_factor": sum(counts["decode"]) / heard,
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
            metrics = _plain(self._scores(condition), short=True)
            label = sound_codecs.label(codec, setting)
            table[codec].append({"setting": setting, "label": label, "metrics": metrics})
        return table

    def _metric_cost(self) -> dict[str, Any]:
        """Return what each metric costs per second of sound, its first clip (imports) left out."""
        conditions = self.conditions.values()
        table: dict[str, float] = {}
        for name in {name: None for one in conditions for name in one.cost}:
            spent = sum(sum(one.cost.get(name, [])[1:]) for one in conditions)
            heard = sum(sum(one.counts["seconds"][1:]) for one in conditions if name in one.cost)
            if heard:
                table[name] = spent / heard
        return {"cpu_seconds_per_second": table, "definition": COST}


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
