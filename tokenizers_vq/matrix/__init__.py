"""Every quantizer head on every tiny backbone for one small budget: one table, one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers_vq.configs import config_names, read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation.protocol import load_protocol
from tokenizers_vq.evaluation.run import DataLike
from tokenizers_vq.matrix.cell import Cell, Train, train_with_hydra, why
from tokenizers_vq.matrix.kinds import KINDS, objective_words
from tokenizers_vq.matrix.table import write
from tokenizers_vq.types import SignalSpec

__all__ = ["Cell", "run_matrix", "train_with_hydra"]

CONTINUOUS = ("gaussian",)  # heads without codes


def run_matrix(
    out: str | Path,
    *,
    backbones: Sequence[str] | None = None,
    quantizers: Sequence[str] | None = None,
    data: str | None = None,
    steps: int = 300,
    seed: int = 0,
    overrides: Sequence[str] = (),
    train: Train | None = None,
    dataset: DataLike | None = None,
) -> list[dict[str, Any]]:
    """Train and measure every combination; cells that are done are not done again.

    A cell that fails is noted with its error and tried again by the next call; the others go on.
    Pictures are measured by the protocol ``image_matrix``, other signals by the validation of
    their training. Tables of several calls with one ``out`` become one.

    Args:
        out: folder of ``matrix.md``, ``matrix.json``, ``matrix.svg`` and one folder per cell.
        backbones: names in ``conf/backbone``; default all that begin with ``tiny_`` and are for
            signals like those of ``data``.
        quantizers: names in ``conf/quantizer``; default all that have codes and take latents with
            the axes of the backbone.
        data: name in ``conf/data``: trained on its train part, measured on its val part. Default:
            what the project generates for the signals of each backbone.
        steps: optimizer steps per cell.
        seed: of every training.
        overrides: further ``train.py`` overrides for every cell.
        train: replaces the training, e.g. in tests.
        dataset: replaces the val part of ``data``.

    Returns:
        One row per cell of this call.

    Raises:
        ConfigError: there is no such backbone, quantizer or data set, a quantizer has no codes, a
            backbone is for other signals, or there is no step to take.
    """
    if steps < 1:
        raise ConfigError(f"matrix: expected at least 1 step per cell; got {steps}. Raise steps.")
    _chosen("data", None if data is None else [data])
    heads, folder, rows = _chosen("quantizer", quantizers), Path(out), []
    for column in _columns(backbones, data, overrides, dataset):
        kind, axes = KINDS[column.signal.kind], column.signal.axes
        protocol = None if kind.protocol is None else load_protocol(kind.protocol)
        for quantizer in heads or [h for h in config_names("quantizer") if _fits(h, axes)]:
            words = [
                f"backbone={column.backbone}", f"quantizer={quantizer}", f"data={column.data}",
                f"trainer.max_steps={steps}", f"seed={seed}", *column.words, *overrides,
            ]  # fmt: skip
            name = f"{column.backbone}__{quantizer}"
            cell = Cell(folder / "cells" / name, words, protocol, kind.scores)
            rows.append({
                "kind": column.signal.kind, "backbone": column.backbone, "quantizer": quantizer,
                "data": column.data, "steps": steps,
                **cell.run(train or train_with_hydra, column.measured),
            })  # fmt: skip
            write(folder, rows)
    return rows


class Column(NamedTuple):
    """A backbone: its signal, the name of its data, what it is measured on, words for it alone."""

    backbone: str
    signal: SignalSpec
    data: str
    measured: DataLike
    words: list[str]


def _columns(
    wanted: Sequence[str] | None,
    data: str | None,
    overrides: Sequence[str],
    dataset: DataLike | None,
) -> list[Column]:
    """Return the backbones; of data that says which kind it holds, those of that kind."""
    tiny = [name for name in config_names("backbone") if name.startswith("tiny_")]
    columns = []
    for name in _chosen("backbone", wanted) or tiny:
        config = read_config("backbone", name)
        signal = SignalSpec(**config["signal"])
        source = data or KINDS[signal.kind].data
        words = [] if data else _size_words(config, source)
        measured = dataset or _val_part([f"backbone={name}", f"data={source}", *words, *overrides])
        axes = measured[0].ndim - 1
        kind = getattr(getattr(measured, "signal", None), "kind", None)
        if signal.axes == axes and kind in (None, signal.kind):
            words += objective_words(signal.kind, config["decoder"]["name"])
            columns.append(Column(name, signal, source, measured, words))
        elif wanted is not None:
            raise ConfigError(
                f"matrix: expected backbones for the signals of '{source}', which have {axes} axes;"
                f" got '{name}' for {signal.kind}. Choose other --data or --backbones."
            )
    return columns


def _size_words(config: dict[str, Any], source: str) -> list[str]:
    """Return the words that make generated pictures as large as a backbone of one size wants."""
    size, made = config["encoder"].get("size"), read_config("data", source)["train"].get("size")
    return [] if size in (None, made) else [f"data.train.size={size}", f"data.val.size={size}"]


def _val_part(words: Sequence[str]) -> DataLike:
    """Return the validation part of the data of a training."""
    from tokenizers_vq.training.run import build_data, check, compose

    try:
        cfg = compose(words)
        check(cfg)
        val: Any = build_data(cfg).val
    except Exception as error:  # of Hydra's many kinds
        raise ConfigError(f"matrix: {why(error)}") from error
    if val is None:
        raise ConfigError(f"matrix: expected data with a val part; got none in {words[1]}.")
    measured: DataLike = val
    return measured


def _chosen(group: str, wanted: Sequence[str] | None) -> list[str]:
    known = config_names(group)
    for name in wanted or ():
        if name in CONTINUOUS:
            raise ConfigError(
                f"matrix: expected quantizers with codes; got '{name}', which has none. "
                "Leave it out, or fit token_bridge or revq to what it trained."
            )
        if name not in known:
            raise ConfigError(
                f"matrix: expected a {group} in conf/{group}; got '{name}'. "
                f"Choose from {', '.join(known)}."
            )
    return list(wanted or ())


def _fits(quantizer: str, axes: int) -> bool:
    """Whether a head has codes and takes latents with ``axes`` axes."""
    config = read_config("quantizer", quantizer)
    made_for = config.get("axes", len(config["base"]) if "base" in config else axes)
    return quantizer not in CONTINUOUS and bool(made_for == axes)
