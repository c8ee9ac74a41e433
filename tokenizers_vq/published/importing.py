"""``from_published``: a state dict as its authors published it becomes a tokenizer.

Every family is one file of this room with one ``FAMILY``. Adding one means adding that file and its
line in ``FAMILIES``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import CheckpointError, ConfigError, unknown_name
from tokenizers_vq.published.keys import Rule, State, rename
from tokenizers_vq.published.wrappers import constructor_values, enclosed_values, unwrap
from tokenizers_vq.quantizers.record import is_record
from tokenizers_vq.tokenizer import Tokenizer

FAMILIES = {
    "alit": "tokenizers_vq.published.alit",
    "bsq_vit": "tokenizers_vq.published.bsq_vit",
    "bigcodec": "tokenizers_vq.published.bigcodec",
    "cosmos_di": "tokenizers_vq.published.cosmos_di",
    "cosmos_dv": "tokenizers_vq.published.cosmos_dv",
    "dm_codec": "tokenizers_vq.published.dm_codec",
    "encodec": "tokenizers_vq.published.encodec",
    "dac": "tokenizers_vq.published.dac",
    "flextok": "tokenizers_vq.published.flextok",
    "fqgan": "tokenizers_vq.published.fqgan",
    "glm4_voice": "tokenizers_vq.published.glm4_voice",
    "ibq": "tokenizers_vq.published.ibq",
    "karl": "tokenizers_vq.published.karl",
    "kl_vae": "tokenizers_vq.published.kl_vae",
    "languagecodec": "tokenizers_vq.published.languagecodec",
    "llamagen": "tokenizers_vq.published.llamagen",
    "maskbit": "tokenizers_vq.published.maskbit",
    "maskgit_vqgan": "tokenizers_vq.published.maskgit_vqgan",
    "mimi": "tokenizers_vq.published.mimi",
    "momask": "tokenizers_vq.published.momask",
    "one_d_piece": "tokenizers_vq.published.one_d_piece",
    "open_magvit2": "tokenizers_vq.published.open_magvit2",
    "open_magvit2_video": "tokenizers_vq.published.open_magvit2_video",
    "s3_tokenizer": "tokenizers_vq.published.s3_tokenizer",
    "simvq": "tokenizers_vq.published.simvq",
    "snac": "tokenizers_vq.published.snac",
    "simvq_audio": "tokenizers_vq.published.simvq_audio",
    "speechtokenizer": "tokenizers_vq.published.speechtokenizer",
    "stable_codec": "tokenizers_vq.published.stable_codec",
    "ta_titok": "tokenizers_vq.published.ta_titok",
    "t2m_gpt": "tokenizers_vq.published.t2m_gpt",
    "taming": "tokenizers_vq.published.taming",
    "titok": "tokenizers_vq.published.titok",
    "var": "tokenizers_vq.published.var",
    "vit_vq": "tokenizers_vq.published.vit_vq",
    "vocos": "tokenizers_vq.published.vocos",
    "vqgan_plus": "tokenizers_vq.published.vqgan_plus",
    "wavtokenizer": "tokenizers_vq.published.wavtokenizer",
    "wetok": "tokenizers_vq.published.wetok",
    "xy_tokenizer": "tokenizers_vq.published.xy_tokenizer",
}
Weights = Mapping[str, Tensor]
# What our heads count while they train; no other project has it.
STATISTICS = r".*\.(cluster_size|initialized|nonfinite|updates)"


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one publication become tokenizers.

    Attributes:
        configure: ``(tensors, upstream constructor values) -> config`` of ``Tokenizer``; what the
            shapes of the tensors say is read from them, what they cannot say from the values.
        rules: ``config -> rules`` from upstream keys to those of our tokenizer.
        fresh: regular expressions of our keys that no file has and that stay as they are built,
            beyond the statistics and records of our heads.
        check: says in a sentence why tensors are not of this family, or returns None.
        prepare: ``tensors -> tensors``, what comes before everything else, such as
            ``fold_weight_norm``; the other steps see its result.
    """

    configure: Callable[[Weights, Mapping[str, Any]], dict[str, Any]]
    rules: Callable[[Mapping[str, Any]], Sequence[Rule]]
    fresh: tuple[str, ...] = ()
    check: Callable[[Weights], str | None] | None = None
    prepare: Callable[[Weights], State] | None = None


def families() -> list[str]:
    """Return the names that ``from_published`` knows."""
    return sorted(FAMILIES)


def from_published(
    family: str,
    state_dict: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    *,
    weights: str = "ema",
    name: str | None = None,
) -> Tokenizer:
    """Return a tokenizer with published weights, in eval mode.

    Args:
        family: one of ``families()``.
        state_dict: what the published file holds: tensors by upstream key, or the wrapper that its
            trainer wrote around them.
        config: upstream constructor values where the tensors do not determine them, as published;
            also the whole published config, with those under ``model``. They go over those that
            the file has beside its tensors.
        weights: ``"ema"`` for averaged weights where the file has both, ``"raw"`` for the others.
        name: ``arch.tag`` of the result; default ``<family>.published``.

    Raises:
        ConfigError: no such family, or a constructor value it does not have.
        CheckpointError: a key is missing or unexpected, or a tensor has another shape.
    """
    if family not in FAMILIES:
        raise unknown_name("from_published", family, FAMILIES)
    where = f"from_published('{family}')"
    rules_of: Family = import_module(FAMILIES[family]).FAMILY
    state = unwrap(state_dict, weights, where)
    try:
        if rules_of.prepare is not None:
            state = rules_of.prepare(state)
        if rules_of.check is not None and (reason := rules_of.check(state)):
            raise CheckpointError(f"{where}: expected a checkpoint of this family; got {reason}.")
        values = {**enclosed_values(state_dict), **constructor_values(config or {})}
        built = rules_of.configure(state, values)
    except KeyError as error:
        raise CheckpointError(
            f"{where}: expected a key {error.args[0]!r}; got {len(state)} others. Is it a "
            "checkpoint of another family?"
        ) from error
    except CheckpointError:
        raise
    except RuntimeError as error:  # of torch, which calls a shape wrong
        raise CheckpointError(
            f"{where}: expected tensors whose shapes go together; got others "
            f"({str(error).splitlines()[0].rstrip('.')}). Import the file as it was published."
        ) from error
    tokenizer = Tokenizer.from_config(built, name=name or f"{family}.published")
    fill(tokenizer, rename(state, rules_of.rules(built), where), rules_of.fresh, where)
    return tokenizer.eval()


def fill(tokenizer: Tokenizer, state: State, fresh: Sequence[str], where: str) -> None:
    """Load tensors under our keys, strictly both ways.

    Args:
        tokenizer: whose weights they become.
        state: tensors by our keys.
        fresh: regular expressions of keys that may be missing.
        where: the name the messages start with.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape.
    """
    own = {key: value for key, value in tokenizer.state_dict().items() if not is_record(key)}
    fresh = (STATISTICS, *fresh)
    missing = [
        key
        for key in own
        if key not in state and not any(re.fullmatch(pattern, key) for pattern in fresh)
    ]
    unexpected = [key for key in state if key not in own]
    if missing or unexpected:
        raise CheckpointError(
            f"{where}: expected the {len(own)} tensors of this size; got {len(missing)} missing "
            f"and {len(unexpected)} unexpected (first: {(missing + unexpected)[0]}). Pass the "
            "constructor values of the published model as config."
        )
    for key, value in state.items():
        if own[key].shape != value.shape:
            raise CheckpointError(
                f"{where}: expected {key} of shape {tuple(own[key].shape)}; got "
                f"{tuple(value.shape)}. Pass the constructor values of the published model as "
                "config."
            )
    with torch.no_grad():  # one by one, so that no second copy of the model is held
        for key, value in state.items():
            own[key].copy_(value)


def require(config: Mapping[str, Any], key: str, where: str) -> Any:
    """Return a constructor value that the tensors do not determine.

    Raises:
        ConfigError: it was not given.
    """
    if key not in config:
        raise ConfigError(
            f"from_published('{where}'): expected the constructor value {key!r}; got "
            f"{sorted(config)}. The weights alone do not determine it: pass it in config."
        )
    return config[key]
