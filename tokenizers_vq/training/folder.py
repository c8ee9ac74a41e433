"""The folder of a run: where it is, what it was started with, and where to go on."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.files import write_atomically
from tokenizers_vq.training.checkpoint import LAST

CONFIG = "config.yaml"
SHARED = "TVQ_RUN_FOLDER"  # tells the processes that this one starts where the run is
STAMP = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"  # before the name of a run in its folder


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes.

    Attributes:
        path: the folder.
        checkpoint: what to go on from; None for a new run.
    """

    path: Path
    checkpoint: Path | None


def open_folder(config: Mapping[str, Any]) -> RunFolder:
    """Find or choose the folder of a run, and write its configuration there.

    Args:
        config: the resolved configuration; ``name``, ``folder``, ``outputs`` and ``resume`` decide.

    Raises:
        ConfigError: the folder has a run already, or one of another tokenizer.
        CheckpointError: ``resume`` names a checkpoint that is not there.
    """
    if not is_first_process():
        return _shared(config)
    run = _resumed(config) or RunFolder(_new_folder(config), None)
    if run.checkpoint is None and (run.path / LAST).exists():
        raise ConfigError(
            f"train: expected a new folder; got {run.path}, which has a {LAST}. "
            "Add resume=auto to go on, or choose another folder."
        )
    if run.checkpoint is not None:
        _check_same_tokenizer(run.path, config)
    run.path.mkdir(parents=True, exist_ok=True)
    write_atomically(run.path / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
    os.environ[SHARED] = os.pathsep.join([str(run.path.resolve()), str(run.checkpoint or "")])
    return run


def is_first_process() -> bool:
    """Return whether this process is the one that writes."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _resumed(config: Mapping[str, Any]) -> RunFolder | None:
    """Return the run that ``resume`` means, or None for a new one."""
    resume, folder = config["resume"], config["folder"]
    if not resume:
        return None
    if resume != "auto":
        path = Path(resume) / LAST if Path(resume).is_dir() else Path(resume)
        if not path.is_file():
            raise CheckpointError(
                f"train: expected a run folder or a checkpoint to resume; got {resume}, which has "
                "none. Correct the path, or use resume=auto."
            )
        return RunFolder(path.parent, path)
    if folder:
        return RunFolder(Path(folder), _existing(Path(folder)))
    ours = re.compile(rf"{STAMP}(-\d+)?_{re.escape(config['name'])}")
    found = Path(config["outputs"]).glob(f"*/{LAST}")
    runs = [path for path in found if ours.fullmatch(path.parent.name)]
    runs = sorted(runs, key=lambda path: path.stat().st_mtime_ns)
    return RunFolder(runs[-1].parent, runs[-1]) if runs else None


def _new_folder(config: Mapping[str, Any]) -> Path:
    if config["folder"]:
        return Path(config["folder"])
    date, count = f"{datetime.now():%Y-%m-%d_%H-%M-%S}", 1
    path = Path(config["outputs"]) / f"{date}_{config['name']}"
    while path.exists():  # two runs of a sweep may begin in one second
        count += 1
        path = Path(config["outputs"]) / f"{date}-{count}_{config['name']}"
    return path


def _shared(config: Mapping[str, Any]) -> RunFolder:
    """Return the run that the first process chose."""
    if SHARED in os.environ:
        path, checkpoint = os.environ[SHARED].split(os.pathsep)
        return RunFolder(Path(path), Path(checkpoint) if checkpoint else None)
    if not config["folder"]:
        raise ConfigError(
            "train: expected folder= with processes that something else started; got none. "
            "Set it to one path for all of them."
        )
    return _resumed(config) or RunFolder(Path(config["folder"]), None)


def _existing(folder: Path) -> Path | None:
    return folder / LAST if (folder / LAST).is_file() else None


def _check_same_tokenizer(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` if the run in ``folder`` trains another tokenizer."""
    if not (folder / CONFIG).is_file():
        return
    before = yaml.safe_load((folder / CONFIG).read_text())
    for part in ("backbone", "quantizer"):
        if before.get(part) != config[part]:
            raise ConfigError(
                f"train: expected the {part} of {folder} to go on; got {config[part]} instead of "
                f"{before.get(part)}. Start a new run, or resume with the same {part}."
            )
