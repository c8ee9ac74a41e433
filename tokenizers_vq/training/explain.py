"""Wrong configurations in a sentence or two: what was expected, what was given, what there is."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

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
NUMBERS = {int, float, bool}
LISTS = {list, tuple}
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
    text = str(error)
    if type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        where = re.search(r"full_key: (\S+)", text)
        if where and not isinstance(error.__cause__, USER_ERRORS):
            return str(wrong_value(where.group(1), error.__cause__))
        return explain(error.__cause__, conf)
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


def wrong_value(group: str, error: BaseException) -> ConfigError:
    """Return the error for values of ``group`` that nothing could be built from."""
    text = " ".join(str(error).split()).rstrip(".")
    return ConfigError(
        f"{group}: expected values of other types or ranges; got {type(error).__name__}: "
        f"{text}. Correct {group}; --debug shows where it was used."
    )


@contextmanager
def building(group: str) -> Iterator[None]:
    """Turn what goes wrong while something is built from ``group`` into a ``ConfigError``.

    Raises:
        ConfigError: instead of a ``TypeError`` or ``ValueError`` that is not one of ours.
    """
    try:
        yield
    except USER_ERRORS:
        raise
    except (TypeError, ValueError) as error:
        raise wrong_value(group, error) from error


def check_types(target: Any, options: dict[str, Any], path: str) -> None:
    """Compare plain values with the annotations of what takes them.

    Args:
        target: the class or function; options it annotates with more than numbers, text and lists
            are left to itself.
        options: plain data by name.
        path: of the options in the configuration, for the message.

    Raises:
        ConfigError: text in place of a number, or a number in place of a list, and the like.
    """
    function: Any = target
    if isinstance(target, type):
        function = inspect.getattr_static(target, "__init__")
    hints = get_type_hints(function)
    for name, value in options.items():
        hint = hints.get(name, Any)
        if not _fits(hint, value):
            kind = hint.__name__ if isinstance(hint, type) else str(hint)
            raise ConfigError(
                f"{path}.{name}: expected {kind}; got {value!r}. Correct {path}.{name}."
            )


def _fits(hint: Any, value: Any) -> bool:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    known = {get_origin(kind) or kind for kind in kinds}
    if not known <= {str, NoneType, *NUMBERS, *LISTS}:
        return True
    if isinstance(value, str):
        return str in known
    if isinstance(value, list):
        return bool(known & LISTS)
    return not isinstance(value, int | float) or bool(known & NUMBERS)


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
