"""Wrong configurations in a sentence or two: what was expected, what was given, what there is."""

import re
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

from tokenizers_vq.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingExtraError,
    ShapeError,
    unknown_name,
    unknown_option,
)

USER_ERRORS = (
    CheckpointError,
    ConfigError,
    DataError,
    MissingExtraError,
    ShapeError,
    MisconfigurationException,
    OmegaConfBaseException,
)
# Below these groups an option need not be in a YAML file: what takes it checks its name.
FREE = ("backbone", "quantizer", "objective", "optim", "trainer")


def freed(word: str) -> str:
    """Return an override so that it may also add an option that the YAML files do not mention.

    >>> freed("quantizer.levels=[8,8]"), freed("quantizer=fsq")
    ('++quantizer.levels=[8,8]', 'quantizer=fsq')
    """
    group, dot, _ = word.partition("=")[0].partition(".")
    return f"++{word}" if dot and group in FREE else word


def explain(error: BaseException, conf: Path) -> str:
    """Return one or two lines for an error that a configuration caused.

    Args:
        error: one of ``USER_ERRORS``, or what Hydra raises.
        conf: folder of the configurations, for lists of what there is.
    """
    if type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        return explain(error.__cause__, conf)
    text = str(error)
    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        group, _, name = str(missing).rpartition("/")
        return str(unknown_name(group, name, getattr(error, "options", None) or []))
    override = re.search(r"Could not override '([^']+)'", text)
    if override:
        return _unknown_key(override.group(1), conf)
    unset = re.search(r"Missing mandatory value: (\S+)", text)
    if unset:
        key = unset.group(1)
        return f"train: expected a value of {key}; got none. Add {key}=... to the command."
    return "\n".join(line.strip() for line in text.strip().splitlines()[:2])


def _unknown_key(key: str, conf: Path) -> str:
    """Return the sentence for a key that no configuration has."""
    group, _, option = key.rpartition(".")
    top = _top_level(conf)
    if not group or group.partition(".")[0] not in top:
        return str(unknown_name("train", key.partition(".")[0], top))
    path = conf / group.partition(".")[0]
    known: set[str] = set()
    for file in sorted(path.glob("*.yaml")):
        node: Any = yaml.safe_load(file.read_text())
        for part in group.split(".")[1:]:
            node = node.get(part) if isinstance(node, dict) else None
        known |= {str(name) for name in node} if isinstance(node, dict) else set()
    return str(unknown_option("config", group, option, known - {"_target_", "defaults"}))


def _top_level(conf: Path) -> list[str]:
    """Return the groups and keys that a command line may set."""
    train = yaml.safe_load((conf / "train.yaml").read_text())
    groups = [path.name for path in conf.iterdir() if path.is_dir() and any(path.glob("*.yaml"))]
    composed = {name for entry in train["defaults"] if isinstance(entry, dict) for name in entry}
    keys = [key for key in train if key not in ("defaults", "hydra")]
    return [name for name in groups if name in composed] + keys
