"""Where a training part finds the weights of a published network; nothing is ever downloaded."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tokenizers_vq.errors import CheckpointError


def find_file(where: str, file: str, given: str | Path | None = None) -> Path | None:
    """Return the path of a weights file, or None if this machine has none.

    Looked for are ``given``, then the environment variable TVQ_WEIGHTS (the file or a folder), then
    the cache of ``torch.hub``.

    Args:
        where: who wants it, for the error message.
        file: its published name.
        given: a file of any name, or a folder that holds ``file``.

    Raises:
        CheckpointError: ``given`` is not there.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    places = [Path(given)] if given else [Path(os.environ.get("TVQ_WEIGHTS") or hub), hub]
    for place in places:
        path = place / file if place.is_dir() else place
        # a TVQ_WEIGHTS file may hold another network's weights
        if path.is_file() and (given or path.name == file):
            return path
    if given:
        raise CheckpointError(
            f"{where}: expected {file} at {given}; there is none. "
            "Correct the path, or leave it out to search the torch.hub cache."
        )
    return None


def read_state(where: str, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, checked against the digest in its name where it has one.

    Args:
        where: who wants it, for the error message.
        path: a ``.safetensors`` file, or one that ``torch.load(weights_only=True)`` reads.

    Raises:
        CheckpointError: the file is damaged, or holds more than tensors.
    """
    digits = re.search(r"-([0-9a-f]{8})$", path.stem)
    if digits is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(digits.group(1)):
            raise CheckpointError(
                f"{where}: expected a sha256 that begins with {digits.group(1)}; got {found[:8]} "
                f"for {path}. Copy the file again."
            )
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{where}: expected a file of tensors; got '{path}', which cannot be read. "
            "Copy the file again."
        ) from error
    return dict(state)
