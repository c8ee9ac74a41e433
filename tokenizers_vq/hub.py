"""Saving, loading and publishing tokenizers: safetensors and JSON, with a sha256 for every file.

A tokenizer folder holds ``config.json`` (plain data, the names of ``registry``, the hash of each
file), ``model.safetensors``, and where there are any ``prior.safetensors`` (the entropy coder's
statistics), ``index_map.safetensors`` (what the indices of the tokenizer it was made from have
become), ``discriminator.safetensors`` (to fine-tune with) and ``README.md`` (the card).
Nothing in it is code, and nothing is unpickled.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from tokenizers_vq.bitstream import CountPrior
from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.files import write_atomically
from tokenizers_vq.functional.index_map import IndexMaps
from tokenizers_vq.quantizers.record import is_record
from tokenizers_vq.registry import build
from tokenizers_vq.tokenizer import PARTS, Tokenizer

FORMAT = "tokenizers_vq/1"
CONFIG, MODEL, PRIOR = "config.json", "model.safetensors", "prior.safetensors"
DISCRIMINATOR, CARD = "discriminator.safetensors", "README.md"
INDEX_MAP = "index_map.safetensors"


def load(name: str | Path, *, revision: str | None = None) -> Tokenizer:
    """Load a tokenizer for use: in eval mode, every file checked against its sha256.

    Args:
        name: a name that ``tokenizers_vq.list()`` shows, a folder written by ``save`` (or a file
            in it), or a Hugging Face repository as ``hf:org/repo`` or ``hf:org/repo@revision``.
            Names of ``published.table`` are imported from their authors' files.
        revision: branch, tag or commit of the repository.

    Raises:
        CheckpointError: the tokenizer is missing, incomplete, of another config, or changed.
    """
    if str(name) in _published() and not Path(name).exists():
        from tokenizers_vq.published.loading import load_published

        return load_published(str(name), revision)
    folder = _locate(str(name), revision)
    config = read_config(folder)
    try:
        tokenizer = Tokenizer.from_config(config, name=config["name"])
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"load: {folder / CONFIG} does not describe a tokenizer: {error}"
        ) from error
    data = _read_checked(folder, MODEL, config)
    _fill(tokenizer, data, folder / MODEL)
    tokenizer.file_sha256 = config["files"][MODEL]
    tokenizer.source = config.get("source")
    if PRIOR in config["files"]:
        _read_checked(folder, PRIOR, config)
        tokenizer.prior = CountPrior.load(folder / PRIOR)
    if INDEX_MAP in config["files"]:
        tokenizer.index_maps = IndexMaps(_read_checked(folder, INDEX_MAP, config))
    return tokenizer.eval()


def save(
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    name: str | None = None,
    discriminator: tuple[nn.Module, Mapping[str, Any]] | None = None,
    card: str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a tokenizer so that ``load(folder)`` gives it back.

    The new files are written beside ``folder`` and moved into place when they are whole, so a
    crash leaves either the old tokenizer or the new one.

    Args:
        tokenizer: what to save; its ``config`` must be the one it was built from.
        folder: where; an existing tokenizer there is replaced, its other files stay.
        name: ``arch.tag``; default the tokenizer's own name.
        discriminator: the module and the plain config it was built from, for fine-tuning.
        card: Markdown text for ``README.md``.
        dtype: store floating-point weights in this type (``torch.float16`` halves the file).

    Raises:
        CheckpointError: ``folder`` exists and is not a tokenizer, or the tokenizer has no config.
    """
    folder = Path(folder)
    if folder.is_file():
        raise CheckpointError(f"save: expected a folder; got the file {folder}. Name a new folder.")
    if not tokenizer.config:
        raise CheckpointError(
            "save: this tokenizer was not built from a config, so none can be saved."
        )
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).exists():
        raise CheckpointError(f"save: {folder} holds other files; choose a new or an empty folder.")
    name = name or tokenizer.name
    contents = {MODEL: safetensors_bytes(_state(tokenizer, dtype))}
    if tokenizer.prior is not None:
        prior = tokenizer.prior.for_model(f"{name}@{_sha256(contents[MODEL])[:8]}")
        contents[PRIOR] = prior.to_bytes()
    if tokenizer.index_maps is not None:
        contents[INDEX_MAP] = tokenizer.index_maps.data
    if discriminator is not None:
        contents[DISCRIMINATOR] = safetensors_bytes(_state(discriminator[0], dtype))
    if card is not None:
        contents[CARD] = card.encode()
    config = _described(tokenizer, name)
    if discriminator is not None:
        config["discriminator"] = dict(discriminator[1])
    config["files"] = {file: _sha256(data) for file, data in contents.items() if file != CARD}
    config["sha256"] = _config_hash(config)
    contents[CONFIG] = (json.dumps(config, indent=1) + "\n").encode()
    _replace_folder(folder, contents)
    if dtype is None and name == tokenizer.name and not tokenizer.training:
        # from here on it is the tokenizer in the file, and writes the same .tok files
        tokenizer.file_sha256 = config["files"][MODEL]
        tokenizer.prior = None if tokenizer.prior is None else prior
    return folder


def load_discriminator(folder: str | Path) -> nn.Module:
    """Load the discriminator that lies beside a tokenizer, to go on training with it.

    Raises:
        CheckpointError: the folder has none.
    """
    folder = Path(folder)
    config = read_config(folder)
    if DISCRIMINATOR not in config["files"]:
        raise CheckpointError(f"load_discriminator: {folder} was saved without a discriminator.")
    module: nn.Module = build("discriminator", config["discriminator"])
    _fill(module, _read_checked(folder, DISCRIMINATOR, config), folder / DISCRIMINATOR)
    return module


def push(folder: str | Path, repo: str, *, private: bool = False) -> str:
    """Upload a saved tokenizer to the Hugging Face hub and return its address.

    Args:
        folder: what ``save`` wrote; it is loaded first, so a broken one is never published.
        repo: ``org/name``.
        private: create the repository as private.
    """
    from huggingface_hub import HfApi

    load(folder)
    api = HfApi()
    api.create_repo(repo, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=repo, folder_path=str(folder)))


def list_pretrained(pattern: str = "*") -> list[str]:
    """Return the names that ``load`` knows, sorted, as far as they match a shell ``pattern``."""
    names = {*_pretrained(), *_published()}
    return sorted(name for name in names if fnmatch(name, pattern))


def read_config(folder: Path) -> dict[str, Any]:
    """Return the checked ``config.json`` of a tokenizer folder.

    Raises:
        CheckpointError: it is missing, not JSON, of another format, or changed since it was saved.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"load: {folder} has no {CONFIG}; it is not a tokenizer folder.")
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(
            f"load: {path} is not valid JSON ({error}); it was cut or edited."
        ) from error
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"load: expected format '{FORMAT}' in {path}; got {found!r}.")
    if config.get("sha256") != _config_hash(config):
        raise CheckpointError(f"load: {path} was changed after it was saved (its sha256 differs).")
    hashes = config.get("files")
    named = isinstance(config.get("name"), str)
    if not named or not isinstance(hashes, dict) or MODEL not in hashes:
        raise CheckpointError(
            f"load: expected 'name' and 'files' with {MODEL} in {path}; the file is incomplete."
        )
    return dict(config)


@cache
def _pretrained() -> dict[str, dict[str, Any]]:
    """Return the table of published tokenizers: name to folder (shipped) or repository."""
    text = (files("tokenizers_vq") / "pretrained.json").read_text()
    return dict(json.loads(text))


@cache
def _published() -> frozenset[str]:
    """Return the names of the table of published checkpoints."""
    from tokenizers_vq.published.table import CHECKPOINTS

    return frozenset(CHECKPOINTS)


def _locate(name: str, revision: str | None) -> Path:
    path = Path(name).expanduser()
    _recover(path)
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    entry = _pretrained().get(name)
    if entry is not None and "folder" in entry:
        return Path(str(files("tokenizers_vq")), entry["folder"])
    if entry is not None:
        return _download(entry["repo"], revision or entry["revision"])
    if name.startswith("hf:"):
        repo, _, pinned = name.removeprefix("hf:").partition("@")
        return _download(repo, revision or pinned or None)
    known = ", ".join(sorted(_pretrained())) or "none"
    raise CheckpointError(
        f"load: '{name}' is neither a folder nor a known name; known names are {known}, and the "
        f"{len(_published())} published ones that `tvq list` shows. "
        "A Hugging Face repository is written 'hf:org/repo'."
    )


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = [CONFIG, MODEL, PRIOR, INDEX_MAP, DISCRIMINATOR, CARD]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"load: could not get '{repo}' from the Hugging Face hub: {first}"
        ) from error


def _read_checked(folder: Path, file: str, config: Mapping[str, Any]) -> bytes:
    path = folder / file
    if not path.is_file():
        raise CheckpointError(f"load: {folder} has no {file}; the folder is incomplete.")
    data = path.read_bytes()
    expected, got = config["files"].get(file, "none"), _sha256(data)
    if expected != got:
        raise CheckpointError(
            f"load: {path} is damaged or was changed: expected sha256 {expected[:12]}..; "
            f"got {got[:12]}.. ({len(data)} bytes). Save or download it again."
        )
    return data


def _fill(module: nn.Module, data: bytes, path: Path) -> None:
    """Copy the tensors of a file into ``module``, strictly, keeping the module's own dtypes."""
    try:
        state = load_bytes(data)
    except SafetensorError as error:
        raise CheckpointError(f"load: {path} is not a safetensors file ({error}).") from error
    own = module.state_dict()
    own = {key: value for key, value in own.items() if key in state or not is_record(key)}
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shapes = [
        key for key in own if key in state and own[key].shape != state[key].shape
        and not is_record(key)  # load_state_dict says what differs
    ]  # fmt: skip
    if missing or unexpected or shapes:
        first = (missing + unexpected + shapes)[0]
        raise CheckpointError(
            f"load: {len(missing)} tensors missing, {len(unexpected)} unexpected and {len(shapes)} "
            f"of another shape in {path} (first: {first}). The file is for another config."
        )
    module.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()})


def _state(module: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    def stored(value: Tensor) -> Tensor:
        value = value.detach().cpu().contiguous()
        return value.to(dtype) if dtype is not None and value.is_floating_point() else value

    return {key: stored(value) for key, value in module.state_dict().items()}


def _described(tokenizer: Tokenizer, name: str) -> dict[str, Any]:
    """Return what ``config.json`` says about a tokenizer before its files are known."""
    config: dict[str, Any] = {"format": FORMAT, "name": name}
    config |= {part: tokenizer.config[part] for part in PARTS}
    if tokenizer.source is not None:
        config["source"] = dict(tokenizer.source)
    return config


def _replace_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write ``contents`` to a sibling folder and swap it in."""
    _recover(folder)
    part, old = _beside(folder, "part"), _beside(folder, "old")
    for stale in (part, old):
        shutil.rmtree(stale, ignore_errors=True)
    part.mkdir(parents=True)
    for file, data in contents.items():
        write_atomically(part / file, data)
    if folder.exists():
        for kept in folder.iterdir():
            if kept.name not in {CONFIG, MODEL, PRIOR, INDEX_MAP, DISCRIMINATOR} | set(contents):
                copy = shutil.copytree if kept.is_dir() else shutil.copy2
                copy(kept, part / kept.name)
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Put the old tokenizer back if a crash came between the two renames of ``_replace_folder``."""
    old = _beside(folder, "old")
    if folder.name and not folder.exists() and old.is_dir():
        old.rename(folder)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}") if folder.name else folder


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _config_hash(config: Mapping[str, Any]) -> str:
    content = {key: value for key, value in config.items() if key != "sha256"}
    return _sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
