"""What lies around the tensors of a published file: wrappers, prefixes and averaged weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import CheckpointError, ConfigError

WEIGHTS = ("ema", "raw")
INSIDE = {  # where the tensors are, in this order of preference
    "ema": (
        "ema_state_dict", "ema", "model_ema", "state_dict", "best_state", "model", "generator",
        "net", "vq_model",
    ),
    "raw": (
        "state_dict", "best_state", "model", "generator", "net", "vq_model", "ema_state_dict",
        "ema", "model_ema",
    ),
}  # fmt: skip
PARTED = ("CodecEnc", "generator")  # networks that a file holds side by side, with these prefixes
# of DistributedDataParallel, compile, averaging, a trainer of two networks
PREFIXES = ("module.", "_orig_mod.", "module.", "generator.")
DEPTH = 3  # of wrappers in wrappers
TRAINING = ("loss.", "perceptual_loss.", "inception_model.", "lpips.")  # not of the tokenizer
NOT_AVERAGED = ("decay", "num_updates", *(part.replace(".", "") for part in TRAINING))


def unwrap(file: Mapping[str, Any], weights: str, where: str) -> dict[str, Tensor]:
    """Return the flat tensors of the weights that were asked for.

    Args:
        file: what the published file holds, flat or wrapped, as it is.
        weights: ``"ema"`` for averaged weights where there are any, ``"raw"`` for the others.
        where: the name the messages start with.

    Raises:
        ConfigError: ``weights`` is neither.
        CheckpointError: there are no tensors.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"{where}: expected weights of 'ema' or 'raw'; got {weights!r}.")
    inner: Mapping[str, Any] = _joined(file)
    for _ in range(DEPTH):
        found = [inner[key] for key in INSIDE[weights] if isinstance(inner.get(key), Mapping)]
        inner = _joined(found[0]) if found else inner
    state = {k: v for k, v in inner.items() if isinstance(v, Tensor)}
    if not state:
        raise CheckpointError(
            f"{where}: expected a state dict of tensors; got the keys {sorted(file)[:5]}. "
            "Pass what the published file holds."
        )
    state.pop("n_averaged", None)  # the counter of torch.optim.swa_utils.AveragedModel
    state = _without_prefixes(state)
    state = {k: v for k, v in state.items() if not k.startswith(TRAINING)}
    return _averaged(state, weights == "ema", where)


def _joined(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tensors of networks that lie side by side as one state dict."""
    if not all(isinstance(file.get(part), Mapping) for part in PARTED):
        return file
    return {f"{part}.{key}": value for part in PARTED for key, value in file[part].items()}


def enclosed_values(file: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor values that a file keeps beside its tensors; nothing if it has none.

    They are under ``metadata``, ``kwargs``.
    """
    beside = file.get("metadata")
    kept = beside.get("kwargs") if isinstance(beside, Mapping) else None
    return dict(kept) if isinstance(kept, Mapping) else {}


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _averaged(state: dict[str, Tensor], wanted: bool, where: str) -> dict[str, Tensor]:
    """Apply or leave out the averages that are kept as ``model_ema.<name without dots>``."""
    plain = {key: value for key, value in state.items() if not key.startswith("model_ema.")}
    if len(plain) == len(state) or not wanted:
        return plain
    flat: dict[str, str] = {}
    for key in plain:
        short = key.replace(".", "")
        if short in flat:
            raise CheckpointError(
                f"{where}: expected averaged weights with one name each; got {flat[short]} and "
                f"{key} under one name. Import with weights='raw'."
            )
        flat[short] = key
    for key, value in state.items():
        short = key.removeprefix("model_ema.")
        if short in flat and short != key:
            plain[flat[short]] = value
        elif short != key and not short.startswith(NOT_AVERAGED):
            raise CheckpointError(
                f"{where}: expected averages of tensors that are in the file; got {key}. Import "
                "the file as it was published, or with weights='raw'."
            )
    return plain


def constructor_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor values of a config, also of a whole one with ``model.params``."""
    model = config.get("model")
    if isinstance(model, Mapping):
        for key in ("params", "init_args"):
            if isinstance(model.get(key), Mapping):
                return dict(model[key])
    return dict(config)


def agree(given: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Raise ``CheckpointError`` for a constructor value that the tensors contradict.

    Args:
        given: constructor values; those that are absent or None are not looked at.
        found: what the tensors say, by the same names.
        where: the name the message starts with.
    """
    for key, value in found.items():
        told = given.get(key)
        told = list(told) if isinstance(told, Sequence) and not isinstance(told, str) else told
        if told is not None and told != value:
            raise CheckpointError(
                f"{where}: expected {key} of {value}, as the tensors have it; got {told} in "
                "config. Pass the constructor values of this checkpoint."
            )


def check_config(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise ``ConfigError`` for a constructor value that the family does not have."""
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{where}: expected constructor values of {', '.join(known)}; got {key!r}. "
                "Pass those of the published model."
            )
