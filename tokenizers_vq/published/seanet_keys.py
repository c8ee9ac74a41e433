"""Keys, constructor values and sizes that all published networks of EnCodec's shape share.

Three layouts are known: the one of the authors' packages (``encoder.model.0.conv.conv.weight``),
the one of transformers (``encoder.layers.0.conv.weight``), and either of them with its weight
normalisation multiplied out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published.keys import Rule, State, fold_weight_norm, sizes
from tokenizers_vq.published.wrappers import agree

SIDE = r"(encoder|decoder)\.(?:model|layers)\.(\d+)\."
CONV = r"(?:conv\.conv|convtr\.convtr|conv)\.(weight|bias)"
NORM = r"(?:(?:conv|convtr)\.)?norm\.(weight|bias)"
CODEBOOK = r"quantizer\.(?:vq\.)?layers\.(\d+)\._?codebook\."
# What each value is called: in the packages, in their training configs, in transformers.
NAMES = {
    "sample_rate": ("sample_rate", "sampling_rate"),
    "channels": ("channels", "audio_channels"),
    "dim": ("dimension", "hidden_size"),
    "width": ("n_filters", "num_filters"),
    "ratios": ("ratios", "strides", "upsampling_ratios"),
    "lstm": ("lstm", "lstm_layers", "num_lstm_layers"),
    "bidirectional": ("bidirectional",),
    "causal": ("causal", "use_causal_conv"),
    "pad": ("pad_mode",),
    "residual_layers": ("n_residual_layers", "num_residual_layers"),
    "dilation_base": ("dilation_base", "dilation_growth_rate"),
    "compress": ("compress",),
    "activation": ("activation",),
    "codes": ("bins", "codebook_size"),
    "levels": ("n_q",),
    "loudness": ("normalize", "renormalize"),
    "seconds": ("segment", "chunk_length_s"),
    "overlap": ("overlap",),
    "trim": ("trim_right_ratio",),
    "final": ("final_activation",),
}
SECTIONS = ("encodec", "seanet", "rvq", "encoder", "decoder")  # of training configs
PADS = {"constant": "zeros", "reflect": "reflect", "replicate": "replicate"}


def prepare(state: Mapping[str, Tensor]) -> State:
    """Return ``state`` without weight normalisation, and with activations' ``(C, 1)`` alphas."""
    folded = fold_weight_norm(state)
    return {
        key: value[0] if key.endswith(".alpha") and value.ndim == 3 else value
        for key, value in folded.items()
    }


def network_rules() -> list[Rule]:
    """Return the rules of encoder and decoder."""
    return [
        Rule(SIDE + CONV, r"\1.layers.\2.conv.\3"),
        Rule(SIDE + NORM, r"\1.layers.\2.norm.\3"),
        Rule(SIDE + r"block\.(\d+)\." + CONV, r"\1.layers.\2.branch.\3.conv.\4"),
        Rule(SIDE + r"block\.(\d+)\." + NORM, r"\1.layers.\2.branch.\3.norm.\4"),
        Rule(SIDE + r"shortcut\." + CONV, r"\1.layers.\2.shortcut.conv.\3"),
        Rule(SIDE + r"shortcut\." + NORM, r"\1.layers.\2.shortcut.norm.\3"),
        Rule(SIDE + r"(lstm\..*)", r"\1.layers.\2.\3"),
        Rule(SIDE + r"alpha", r"\1.layers.\2.alpha"),
        Rule(SIDE + r"block\.(\d+)\.alpha", r"\1.layers.\2.branch.\3.alpha"),
    ]


def codebook_rules() -> list[Rule]:
    """Return the rules of codebooks that moving averages teach, with those averages."""
    return [
        Rule(CODEBOOK + "embed", r"quantizer.stages.\1.codebook"),
        Rule(CODEBOOK + "embed_avg", r"quantizer.stages.\1.cluster_sum"),
        Rule(CODEBOOK + "cluster_size", r"quantizer.stages.\1.cluster_size"),
        Rule(
            CODEBOOK + "inited", r"quantizer.stages.\1.initialized", lambda flag: flag.reshape(())
        ),
    ]


def values_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor values under one set of names, ``NAMES`` and ``shortcut``.

    Values of trainers and of other parts, which published files hold too, are left out.

    Raises:
        ConfigError: a value that no published network of this shape has.
    """
    flat = _flat(config)
    found = {
        ours: flat[theirs]
        for ours, names in NAMES.items()
        for theirs in names
        if flat.get(theirs) is not None
    }
    if isinstance(found.get("bidirectional"), str):
        found.pop("bidirectional")
    for name in ("true_skip", "use_conv_shortcut"):
        if name in flat:
            found["shortcut"] = bool(flat[name]) == (name == "use_conv_shortcut")
    if found.pop("trim", 1.0) != 1.0 or "final" in found:
        raise ConfigError(
            "from_published: expected a trim_right_ratio of 1 and no final_activation; got other "
            "ones. No published network of this shape has them."
        )
    if "pad" in found and found["pad"] not in PADS:
        raise ConfigError(
            f"from_published: expected a pad_mode of {', '.join(PADS)}; got {found['pad']!r}. "
            "Pass the constructor values of the published model."
        )
    return found


def network_of(state: Mapping[str, Tensor], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what the tensors say about encoder and decoder, as options of ``seanet``.

    Args:
        state: prepared tensors, by upstream key.
        given: constructor values by our names.
        where: the name the messages start with.

    Returns:
        ``dim``, ``channels`` and ``part``, the config of either side.

    Raises:
        CheckpointError: a constructor value that the tensors contradict.
    """
    convs = _convs(state)
    first, *downs, last = (convs[index] for index in sorted(convs))
    blocks = sizes(state, r"encoder\.(?:model|layers)\.(\d+)\.block\.")
    inner = _first(state, r"encoder\.\w+\.\d+\.block\.1\.(?:conv\.)?conv\.weight")
    layers = sizes(state, r"encoder\..*\.lstm\.weight_hh_l(\d+)$")
    found = {
        "dim": last.shape[0],
        "channels": first.shape[1],
        "width": first.shape[0],
        "ratios": [down.shape[-1] // 2 for down in reversed(downs)],
        "lstm": layers,
        "residual_layers": blocks // len(downs),
        "compress": inner.shape[1] // inner.shape[0],
        "shortcut": any(".shortcut." in key for key in state),
    }
    agree(given, found, where)
    conventions = {
        "norm": "group" if any(".norm." in key for key in state) else "none",
        "bidirectional": any("_reverse" in key for key in state),
        "activation": "snake" if any(key.endswith(".alpha") for key in state) else "elu",
        "kernel": first.shape[-1],
        "last_kernel": last.shape[-1],
        "residual_kernel": inner.shape[-1],
        "dilation_base": given.get("dilation_base", 2),
        **{key: found[key] for key in ("lstm", "residual_layers", "compress", "shortcut")},
    }
    part = {"name": "seanet", "width": found["width"], "ratios": found["ratios"]}
    return {
        "dim": found["dim"],
        "channels": found["channels"],
        "part": {**part, "conventions": conventions},
    }


def residual_codebooks(
    state: Mapping[str, Tensor], given: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return the config of a stack of codebooks that moving averages teach.

    Raises:
        CheckpointError: a constructor value that the tensors contradict.
    """
    table = _first(state, CODEBOOK + "embed")
    levels = sizes(state, CODEBOOK)
    agree(given, {"codes": table.shape[0], "levels": levels}, where)
    stage = {
        "name": "vq",
        "codebook_size": table.shape[0],
        "codebook_update": "ema",
        "commitment_weight": 1.0,
        "kmeans_init": "random",
    }
    return {"name": "residual", "stages": {"repeat": levels, "of": stage}}


def tokenizer_config(
    network: Mapping[str, Any], quantizer: Mapping[str, Any], sample_rate: int
) -> dict[str, Any]:
    """Return the config of a tokenizer."""
    signal = {"kind": "audio", "channels": network["channels"], "sample_rate": sample_rate}
    return {
        "signal": signal,
        "dim": network["dim"],
        "encoder": network["part"],
        "quantizer": dict(quantizer),
        "decoder": network["part"],
    }


def _convs(state: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Return the weights of the encoder's convolutions outside residual units, by layer."""
    pattern = r"encoder\.(?:model|layers)\.(\d+)\.(?:conv\.)?conv\.weight"
    found = {}
    for key, value in state.items():
        match = re.fullmatch(pattern, key)
        if match is not None:
            found[int(match.group(1))] = value
    if len(found) < 3:
        raise KeyError("encoder.model.0.conv.conv.weight")
    return found


def _first(state: Mapping[str, Tensor], pattern: str) -> Tensor:
    for key, value in state.items():
        if re.fullmatch(pattern, key):
            return value
    raise KeyError(pattern.replace("\\", ""))


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value) if key in SECTIONS else {}
        else:
            flat[key] = value
    return flat
