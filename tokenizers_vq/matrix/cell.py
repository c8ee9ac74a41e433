"""One training and its measurement."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers_vq.errors import DataError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.entry import evaluate
from tokenizers_vq.evaluation.image_run import TokenizerLike
from tokenizers_vq.evaluation.protocol import Protocol
from tokenizers_vq.evaluation.run import DataLike
from tokenizers_vq.evaluation.sound_protocol import SoundProtocol

Train = Callable[[list[str], Path], TokenizerLike]
"""Takes the overrides of ``train.py`` and the run folder, returns the trained tokenizer."""


def train_with_hydra(overrides: list[str], folder: Path) -> TokenizerLike:
    """Train as ``python train.py`` does and return the tokenizer the run published.

    Args:
        overrides: e.g. ``["quantizer=fsq", "trainer.max_steps=100"]``.
        folder: of the run.

    Raises:
        KeyboardInterrupt: the run was stopped.
    """
    from tokenizers_vq.hub import load
    from tokenizers_vq.training.run import compose, run

    # auto: a cell that was stopped halfway goes on from its last checkpoint
    if not run(compose([*overrides, f"folder={folder}", "resume=auto"])).finished:
        raise KeyboardInterrupt
    return load(str(folder / "tokenizer"))


def why(error: Exception) -> str:
    """Return what an error says in its first line, or else its name."""
    from tokenizers_vq.training.explain import explain
    from tokenizers_vq.training.run import conf

    return (explain(error, conf()).splitlines() or [type(error).__name__])[0]


class Cell:
    """A folder that says whether its training and measurement are done.

    Args:
        folder: of the run, the result and ``cell.json``.
        overrides: of ``train.py``.
        protocol: how the tokenizer is measured; None for the last validation of its training.
        scores: the metrics that are kept.
    """

    def __init__(
        self,
        folder: Path,
        overrides: list[str],
        protocol: Protocol | SoundProtocol | None,
        scores: Sequence[str],
    ) -> None:
        self.folder = folder
        self.overrides = overrides
        self.protocol = protocol
        self.scores = scores
        key = "\n".join([*overrides, *([] if protocol is None else [protocol.id])])
        self.key = hashlib.sha256(key.encode()).hexdigest()[:16]

    def run(self, train: Train, dataset: DataLike) -> dict[str, Any]:
        """Return the numbers of the cell, from its folder if it was done with the same settings.

        A failure is written down as the cell's status; the next call tries again.
        """
        path = self.folder / "cell.json"
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            if known.get("key") == self.key and known.get("status") == "ok":
                return dict(known)
        try:
            row = self._measure(train, dataset)
        except Exception as error:  # a cell may fail in any way; the others must go on
            row = {"status": "failed", "error": why(error).replace("|", "/")}
            sys.stderr.write(f"matrix: {' '.join(self.overrides[:2])} failed: {row['error']}\n")
        row |= {"key": self.key, "overrides": self.overrides}
        results.write_json(path, row)
        return row

    def _measure(self, train: Train, dataset: DataLike) -> dict[str, Any]:
        start, start_cpu = time.perf_counter(), time.process_time()
        run = self.folder / f"run_{self.key}"
        tokenizer = train(self.overrides, run)
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        if self.protocol is None:
            numbers = by_validation(tokenizer, dataset, run, self.scores)
        else:
            numbers = self._by_protocol(tokenizer, dataset, self.protocol)
        return {"status": "ok", **numbers, "train_seconds": seconds, "train_cpu_seconds": cpu}

    def _by_protocol(
        self, tokenizer: TokenizerLike, dataset: DataLike, protocol: Protocol | SoundProtocol
    ) -> dict[str, Any]:
        result = evaluate(tokenizer, dataset, protocol, self.folder, pictures=4)
        scores, speed = result["metrics"], result["throughput"]
        return {
            **{name: scores[name]["value"] for name in self.scores},
            "encode_per_second": _per_second(speed, "encode"),
            "decode_per_second": _per_second(speed, "decode"),
            "measured": protocol.id,
            "commit": result["environment"]["commit"],
        }


def by_validation(
    tokenizer: TokenizerLike, dataset: DataLike, run: Path, scores: Sequence[str]
) -> dict[str, Any]:
    """Return the last validation of a run, the bits of an item and items per second.

    Args:
        tokenizer: what the run published.
        dataset: the items of the validation.
        run: folder of the run.
        scores: names behind ``val/``; ``usage`` is that of the codebook, ``nominal_bits`` a mean.

    Raises:
        DataError: the run logged no such number.
    """
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        logged = {k: v for row in csv.DictReader(file) for k, v in row.items() if v}
    bits, encode, decode = 0.0, 0.0, 0.0
    for index in range(len(dataset.ids)):
        x = dataset[index][None]
        start = time.perf_counter()
        codes = tokenizer.encode(x)
        middle = time.perf_counter()
        tokenizer.decode(codes)
        encode, decode = encode + middle - start, decode + time.perf_counter() - middle
        bits += codes.bits
    n = len(dataset.ids)
    usage = logged.get("val/codebook/usage")  # that of the largest vocabularies is not counted
    numbers = {
        "nominal_bits": bits / n, "usage": None if usage is None else float(usage)
    }  # fmt: skip
    for name in scores:
        if name not in numbers and f"val/{name}" not in logged:
            raise DataError(f"matrix: expected val/{name} in {run / 'metrics.csv'}; got none.")
        if name not in numbers:
            numbers[name] = float(logged[f"val/{name}"])
    return {
        **numbers,
        "encode_per_second": n / encode,
        "decode_per_second": n / decode,
        "measured": "validation",
        "commit": results.environment("cpu")["commit"],
    }


def _per_second(speed: Mapping[str, Any], verb: str) -> float:
    """Return pictures per second, or seconds of sound per second."""
    sound = f"{verb}_real_time_factor"
    return 1 / speed[sound] if sound in speed else float(speed[f"{verb}_images_per_second"])
