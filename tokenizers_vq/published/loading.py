"""From published files to tokenizers: reading without running anybody's code, and provenance."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tokenizers_vq.errors import CheckpointError, unknown_name
from tokenizers_vq.published.importing import from_published
from tokenizers_vq.published.s3_graph import read_graph
from tokenizers_vq.published.table import CHECKPOINTS, Checkpoint
from tokenizers_vq.tokenizer import Tokenizer

CHUNK = 2**24  # bytes read at a time when a file is hashed


def read_file(path: str | Path) -> dict[str, Any]:
    """Return what a published file holds: tensors, and whatever plain data lies around them.

    Reads safetensors (``.safetensors``), TorchScript (``.jit``), the ONNX graphs of S3 tokenizers
    (``.onnx``) and pickles of tensors and plain data (any other name). Nothing in a pickle is run:
    one that needs more is refused.

    Raises:
        CheckpointError: the file is missing, damaged, a pickle of more than plain data, or another
            graph.
        MissingExtraError: a graph, and the package that reads it is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"import: expected a file; got {path}. Check the path.")
    try:
        if path.suffix == ".onnx":
            return dict(read_graph(path))
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if path.suffix == ".jit":
            return _script_state(path)
        return dict(_unpickled(path))
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = found[1] if found else "objects"
        raise CheckpointError(
            f"import: expected tensors and plain data in {path}; got a pickle that needs {what}. "
            "Save its state dict as safetensors where the published code is installed."
        ) from error
    except (RuntimeError, SafetensorError, EOFError, TypeError, ValueError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"import: expected a checkpoint in {path}; got a file that cannot be read ({first}). "
            "Download it again."
        ) from error


def import_file(
    paths: Sequence[str | Path],
    family: str,
    config: Mapping[str, Any] | None = None,
    *,
    weights: str = "ema",
    name: str | None = None,
    entry: Checkpoint | None = None,
) -> Tokenizer:
    """Return the tokenizer of one published file, or of several that hold its parts.

    What it came from is kept in ``tokenizer.source``, which ``save`` writes.

    Args:
        paths: the files; the tensors of all are merged.
        family: one of ``published.families()``.
        config: upstream constructor values.
        weights: ``"ema"`` or ``"raw"``.
        name: ``arch.tag`` of the result.
        entry: what the table of published checkpoints says about the files.

    Raises:
        CheckpointError: a file cannot be read, has another hash than the table says, or does not
            fit the family.
        ConfigError: no such family, weights or constructor value.
    """
    hashes = [_sha256(Path(path)) for path in paths if Path(path).is_file()]
    if entry is not None and entry.sha256 and not hashes[0].startswith(entry.sha256):
        raise CheckpointError(
            f"import: expected sha256 {entry.sha256[:12]}.. of {paths[0]}; got {hashes[0][:12]}... "
            "Download it again."
        )
    state: dict[str, Any] = {}
    for path in paths:
        state |= read_file(path)
    tokenizer = from_published(family, state, config, weights=weights, name=name)
    origin = entry.repo or entry.page if entry is not None else ""
    tokenizer.source = {
        "family": family,
        "from": origin,
        "files": dict(zip([Path(path).name for path in paths], hashes, strict=True)),
        "weights": weights,
        "licence": entry.licence if entry is not None else None,
    }
    return tokenizer


def load_published(name: str, revision: str | None = None) -> Tokenizer:
    """Download a published checkpoint of the table and return it as a tokenizer.

    Args:
        name: ``family.tag``, a key of ``CHECKPOINTS``.
        revision: branch, tag or commit of its Hugging Face repository.

    Raises:
        ConfigError: the table has no such name.
        CheckpointError: it is not on the hub, cannot be had, or does not fit.
    """
    if name not in CHECKPOINTS:
        raise unknown_name("load", name, CHECKPOINTS)
    entry = CHECKPOINTS[name]
    family = name.partition(".")[0]
    if entry.repo is None:
        raise CheckpointError(
            f"load: expected a checkpoint on the Hugging Face hub; got '{name}', which is at "
            f"{entry.page}. Download it there and run `tvq import FILE --family {family}`."
        )
    paths = [_download(entry.repo, file, revision, name) for file in entry.files]
    config = dict(entry.config) or None
    return import_file(paths, family, config, weights=entry.weights, name=name, entry=entry)


def _download(repo: str, file: str, revision: str | None, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"load: expected {file} of '{repo}' for '{name}'; got no download ({first}). "
            "Connect to the network, or download it elsewhere and run `tvq import`."
        ) from error


def _unpickled(path: Path) -> Mapping[str, Any]:
    """Read a pickle of tensors and plain data; the old formats cannot be mapped into memory."""
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        found = torch.load(path, mmap=True, **options)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        found = torch.load(path, **options)
    if not isinstance(found, Mapping):
        raise TypeError(f"a {type(found).__name__}, not a mapping")
    return found


def _script_state(path: Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # the files exist in no other form
            warnings.simplefilter("ignore", kind)
        load: Any = torch.jit.load  # torch leaves it untyped
        module = load(str(path), map_location="cpu")
    return dict(module.state_dict())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()
