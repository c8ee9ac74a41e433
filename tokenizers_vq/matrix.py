"""Every quantizer head on every tiny backbone for one small budget: one table, one picture."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers_vq import viz
from tokenizers_vq.configs import config_names, read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.entry import dataset_from, evaluate
from tokenizers_vq.evaluation.image_run import TokenizerLike
from tokenizers_vq.evaluation.protocol import Protocol, load_protocol
from tokenizers_vq.evaluation.run import DataLike
from tokenizers_vq.evaluation.sound_protocol import SoundProtocol
from tokenizers_vq.files import write_atomically
from tokenizers_vq.types import SignalSpec

Train = Callable[[list[str], Path], TokenizerLike]
"""Takes the overrides of ``train.py`` and the run folder, returns the trained tokenizer."""

COLUMNS = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "nominal_bits": "bits / picture",
    "n_bytes": "bytes / picture",
    "usage": "usage",
    "encode_per_second": "encode / s",
    "decode_per_second": "decode / s",
    "train_seconds": "train s",
}
SCORES = ("psnr", "ssim", "nominal_bits", "n_bytes", "usage")
PICTURE = ("psnr", "nominal_bits", "usage", "decode_per_second")
CONTINUOUS = ("gaussian",)  # heads without codes
LOWER = ("nominal_bits", "n_bytes", "train_seconds")


def run_matrix(
    out: str | Path,
    *,
    backbones: Sequence[str] | None = None,
    quantizers: Sequence[str] | None = None,
    data: str = "synthetic_images",
    steps: int = 300,
    seed: int = 0,
    protocol: str | Protocol | SoundProtocol = "image_matrix",
    overrides: Sequence[str] = (),
    train: Train | None = None,
    dataset: DataLike | None = None,
) -> list[dict[str, Any]]:
    """Train and measure every combination; cells that are done are not done again.

    A cell that fails is noted with its error and tried again by the next call; the others go on.

    Args:
        out: folder of ``matrix.md``, ``matrix.json``, ``matrix.svg`` and one folder per cell.
        backbones: names in ``conf/backbone``; default all that begin with ``tiny_`` and are for
            signals like those of ``data``.
        quantizers: names in ``conf/quantizer``; default all that have codes and take
            latents with the axes of ``data``.
        data: name in ``conf/data``: trained on its train part, measured on its val part.
        steps: optimizer steps per cell.
        seed: of every training.
        protocol: how each cell is measured.
        overrides: further ``train.py`` overrides for every cell.
        train: replaces the training, e.g. in tests.
        dataset: replaces the val part of ``data``.

    Returns:
        One row per cell, in the order of the table.

    Raises:
        ConfigError: there is no such backbone, quantizer, data set or protocol, a quantizer has no
            codes, a backbone is for other signals, or there is no step to take.
    """
    if steps < 1:
        raise ConfigError(f"matrix: expected at least 1 step per cell; got {steps}. Raise steps.")
    folder = Path(out)
    chosen = load_protocol(protocol)
    measured = dataset_from(data)[0] if dataset is None else dataset
    heads = [name for name in config_names("quantizer") if _fits(name, measured[0].ndim - 1)]
    rows_of = _chosen("quantizer", quantizers, heads)
    columns_of = _backbones(backbones, measured, data)
    common = [f"data={data}", f"trainer.max_steps={steps}", f"seed={seed}", *overrides]
    rows = []
    for backbone in columns_of:
        for quantizer in rows_of:
            words = [f"backbone={backbone}", f"quantizer={quantizer}", *common]
            cell = Cell(folder / "cells" / f"{backbone}__{quantizer}", words, chosen)
            rows.append({
                "backbone": backbone, "quantizer": quantizer, "steps": steps,
                **cell.run(train or train_with_hydra, measured),
            })  # fmt: skip
            _write(folder, rows, chosen, data)
    return rows


def train_with_hydra(overrides: list[str], folder: Path) -> TokenizerLike:
    """Train as ``python train.py`` does and return the tokenizer the run published.

    Args:
        overrides: e.g. ``["quantizer=fsq", "trainer.max_steps=100"]``.
        folder: of the run.

    Raises:
        ConfigError: the run could not start; its sentence is on standard error.
        KeyboardInterrupt: the run was stopped.
    """
    from tokenizers_vq.hub import load
    from tokenizers_vq.training.run import main

    # auto: a cell that was stopped halfway goes on from its last checkpoint
    code = main([*overrides, f"folder={folder}", "resume=auto"])
    if code == 130:
        raise KeyboardInterrupt
    if code != 0:
        raise ConfigError(
            f"matrix: expected a run that ends with 0; got {code} from {' '.join(overrides)}. "
            "Its message is above."
        )
    return load(str(folder / "tokenizer"))


def matrix_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as Markdown, a backbone after the other, best PSNR first."""
    lines = ["| backbone | quantizer | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---|---|" + "---:|" * len(COLUMNS))
    for row in sorted(rows, key=lambda row: (row["backbone"], -(row.get("psnr") or -1e9))):
        if row["status"] != "ok":
            lines.append(f"| {row['backbone']} | {row['quantizer']} | failed: {row['error']} |")
            continue
        cells = " | ".join(_text(name, row[name]) for name in COLUMNS)
        lines.append(f"| {row['backbone']} | {row['quantizer']} | {cells} |")
    return "\n".join(lines)


def matrix_picture(rows: Sequence[dict[str, Any]]) -> str:
    """Return an SVG: heads down, backbones with PSNR, bits, usage and speed across."""
    backbones = list(dict.fromkeys(row["backbone"] for row in rows))
    heads = list(dict.fromkeys(row["quantizer"] for row in rows))
    names = {
        (backbone, metric): COLUMNS[metric] if len(backbones) == 1 else _two(backbone, metric)
        for backbone in backbones
        for metric in PICTURE
    }
    values, text = {}, {}
    for row in rows:
        for metric in PICTURE:
            place = (row["quantizer"], names[row["backbone"], metric])
            values[place] = row.get(metric)
            text[place] = _text(metric, row.get(metric)) if row["status"] == "ok" else "failed"
    lower = {names[backbone, "nominal_bits"] for backbone in backbones}
    title = f"{' and '.join(backbones)}, {rows[0]['steps']:,} steps"
    return viz.heat_table(heads, list(names.values()), values, text, title, lower)


class Cell:
    """One training and its measurement: a folder that says whether it is done.

    Args:
        folder: of the run, the result and ``cell.json``.
        overrides: of ``train.py``.
        protocol: how the tokenizer is measured.
        scores: the metrics that are kept.
    """

    def __init__(
        self,
        folder: Path,
        overrides: list[str],
        protocol: Protocol | SoundProtocol,
        scores: Sequence[str] = SCORES,
    ) -> None:
        self.folder = folder
        self.overrides = overrides
        self.protocol = protocol
        self.scores = scores
        key = "\n".join([*overrides, protocol.id])
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
            words = str(error).splitlines() or [type(error).__name__]
            row = {"status": "failed", "error": words[0].replace("|", "/")}
            sys.stderr.write(f"matrix: {' '.join(self.overrides[:2])} failed: {words[0]}\n")
        row |= {"key": self.key, "overrides": self.overrides}
        results.write_json(path, row)
        return row

    def _measure(self, train: Train, dataset: DataLike) -> dict[str, Any]:
        start, start_cpu = time.perf_counter(), time.process_time()
        tokenizer = train(self.overrides, self.folder / f"run_{self.key}")
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        result = evaluate(tokenizer, dataset, self.protocol, self.folder, pictures=4)
        scores, speed = result["metrics"], result["throughput"]
        return {
            "status": "ok",
            **{name: scores[name]["value"] for name in self.scores},
            "encode_per_second": _per_second(speed, "encode"),
            "decode_per_second": _per_second(speed, "decode"),
            "train_seconds": seconds,
            "train_cpu_seconds": cpu,
            "commit": result["environment"]["commit"],
        }


def _per_second(speed: Mapping[str, Any], verb: str) -> float:
    """Return pictures per second, or seconds of sound per second."""
    sound = f"{verb}_real_time_factor"
    return 1 / speed[sound] if sound in speed else float(speed[f"{verb}_images_per_second"])


def _chosen(kind: str, wanted: Sequence[str] | None, default: list[str]) -> list[str]:
    known = config_names(kind)
    for name in wanted or ():
        if name in CONTINUOUS:
            raise ConfigError(
                f"matrix: expected quantizers with codes; got '{name}', which has none. "
                "Leave it out, or fit token_bridge or revq to what it trained."
            )
        if name not in known:
            raise ConfigError(
                f"matrix: expected a {kind} in conf/{kind}; got '{name}'. "
                f"Choose from {', '.join(known)}."
            )
    return list(default if wanted is None else wanted)


def _fits(quantizer: str, axes: int) -> bool:
    """Whether a head has codes and takes latents with ``axes`` axes."""
    config = read_config("quantizer", quantizer)
    made_for = config.get("axes", len(config["base"]) if "base" in config else axes)
    return quantizer not in CONTINUOUS and bool(made_for == axes)


def _backbones(wanted: Sequence[str] | None, dataset: DataLike, data: str) -> list[str]:
    """Return the wanted backbones, or all tiny ones whose signals have the axes of the data's.

    Of a data set that says which kind it holds, those of that kind.
    """
    tiny = [name for name in config_names("backbone") if name.startswith("tiny_")]
    axes = dataset[0].ndim - 1
    kind = getattr(getattr(dataset, "signal", None), "kind", None)
    fitting = []
    for name in _chosen("backbone", wanted, tiny):
        signal = SignalSpec(**read_config("backbone", name)["signal"])
        if signal.axes == axes and kind in (None, signal.kind):
            fitting.append(name)
        elif wanted is not None:
            raise ConfigError(
                f"matrix: expected backbones for the signals of '{data}', which have {axes} axes; "
                f"got '{name}' for {signal.kind}. Choose other --data or --backbones."
            )
    return fitting


def _write(
    folder: Path, rows: list[dict[str, Any]], protocol: Protocol | SoundProtocol, data: str
) -> None:
    note = f"Protocol {protocol.id}; data {data}; {rows[0]['steps']:,} optimizer steps per cell."
    results.write_json(
        folder / "matrix.json", {"protocol": protocol.id, "data": data, "rows": rows}
    )
    write_atomically(folder / "matrix.md", f"{matrix_table(rows)}\n\n{note}\n")
    write_atomically(folder / "matrix.svg", matrix_picture(rows))


def _text(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    if metric == "usage":
        return f"{100 * value:.{1 if value >= 0.1 else 3}f} %"
    digits = {"psnr": 2, "ssim": 3}.get(metric, 0)
    return f"{value:,.{digits}f}"


def _two(backbone: str, metric: str) -> str:
    return f"{backbone.removeprefix('tiny_')} {COLUMNS[metric]}"
