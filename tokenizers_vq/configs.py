"""The shipped configurations as plain data, without Hydra: backbones and quantizers by name."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from tokenizers_vq.errors import unknown_name


def config_names(group: str) -> list[str]:
    """Return the sorted config names of a group such as ``backbone`` or ``quantizer``."""
    entries = (_root() / group).iterdir()
    return sorted(
        entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml")
    )


def read_config(group: str, name: str) -> dict[str, Any]:
    """Return ``conf/<group>/<name>.yaml`` as plain data.

    Raises:
        ConfigError: the group has no config of that name; the message lists the ones it has.
    """
    if name not in config_names(group):
        raise unknown_name(group, name, config_names(group))
    return dict(yaml.safe_load((_root() / group / f"{name}.yaml").read_text()))


def tokenizer_config(backbone: str, quantizer: str) -> dict[str, Any]:
    """Return the config that ``Tokenizer.from_config`` takes, from a backbone and a quantizer name.

    >>> tokenizer_config("tiny_cnn2d", "fsq")["quantizer"]["name"]
    'fsq'
    """
    return {**read_config("backbone", backbone), "quantizer": read_config("quantizer", quantizer)}


def _root() -> Traversable:
    return files("tokenizers_vq.conf")
