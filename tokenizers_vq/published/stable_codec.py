"""stable-codec: a transformer autoencoder whose levels may be chosen after training.

``posthoc_bottleneck`` in the config, one of ``PRESETS``, gives the tokens of a residual stack of
coarser levels instead of the 17 levels per channel that it was trained with.

The released code sees the window that the network was trained with only where one package is
installed, and everything without it; here it is always the window.

Reference:
    Parker et al., Scaling Transformers for Low-Bitrate High-Quality Speech Coding, 2024,
    https://arxiv.org/abs/2411.19842, sections 3.1 and 3.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import unknown_name
from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, State, drop, fold_weight_norm, keep, sizes

WHERE = "from_published('stable_codec')"
PRESETS = {  # stages, levels per channel, and by how much each stage is finer
    "1x46656_400bps": (1, 6, 1.0),
    "2x15625_700bps": (2, 5, 0.25),
    "4x729_1000bps": (4, 3, 0.5),
}
WINDOW = (63, 64)
UNLIMITED = 2**31
BLOCK = r"(encoder|decoder)\.layers\.(\d+)\.layers\.(\d+)\."
LAYER = BLOCK + r"(\d+)\."


def prepare(state: Mapping[str, Tensor]) -> State:
    """Return encoder and decoder, without the prefix of trainers and weight normalisation."""
    inner = keep(state, "autoencoder.") or dict(state)
    return fold_weight_norm(inner)


def values_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor values that matter, of a case or of a published ``model_config``."""
    model = config.get("model", config)
    found: dict[str, Any] = {**config, **config.get("encoder_decoder", {})}
    for part in ("pretransform", "bottleneck", "encoder"):
        inside = model.get(part)
        if isinstance(inside, Mapping):
            found |= inside.get("config", {})
    return found


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    given = values_of(config)
    blocks = sizes(state, r"encoder\.layers\.(\d+)\.layers\.")
    first = state["encoder.layers.0.weight"]
    last = state[f"encoder.layers.{blocks + 2}.weight"]
    downs = [_strided(state, block + 1) for block in range(blocks)]
    patch = int(given.get("patch_size", first.shape[1]))
    window = given.get("sliding_window", WINDOW) or (UNLIMITED, UNLIMITED)
    part = {
        "name": "taae",
        "patch": patch,
        "widths": [first.shape[0], *(down.shape[0] for down in downs)],
        "strides": [down.shape[-1] // 2 for down in downs],
        "depths": [
            sizes(state, rf"encoder\.layers\.{block + 1}\.layers\.\d+\.(\d+)\.pre_norm")
            for block in range(blocks)
        ],
        "transformer": {"past": int(window[0]), "future": int(window[1])},
        "snake": f"encoder.layers.{blocks + 1}.alpha" in state,
        "dilated": any(re.match(BLOCK + r"layers\.1\.", key) for key in state),
        "norm": "none",
    }
    signal = {
        "kind": "audio",
        "channels": first.shape[1] // patch,
        "sample_rate": int(config.get("sample_rate", 16000)),
    }
    return {
        "signal": signal,
        "dim": last.shape[0],
        "encoder": part,
        "quantizer": levels_of(given, last.shape[0]),
        "decoder": part,
    }


def levels_of(given: Mapping[str, Any], dim: int) -> dict[str, Any]:
    """Return the config of the levels: those of training, or a stack of ``PRESETS``.

    Raises:
        ConfigError: there is no such preset.
    """
    chosen = given.get("posthoc_bottleneck")
    if chosen is None:
        levels = given.get("levels", 17)
        many = [levels] * dim if isinstance(levels, int) else list(levels)
        return {"name": "dithered_fsq", "levels": many}
    if chosen not in PRESETS:
        raise unknown_name(f"{WHERE} posthoc_bottleneck", str(chosen), PRESETS)
    count, levels, finer = PRESETS[chosen]
    stage = {"name": "fsq", "levels": [levels] * dim, "bound": "clamp"}
    return {
        "name": "residual",
        "stages": {"repeat": count, "of": stage},
        "stage_scale": finer,
        "soft_clamp": 1.0,
    }


def rules(_: Mapping[str, Any]) -> list[Rule]:
    """Return the rules, which need no config."""
    inside = _layer_key
    return [
        Rule(r"(encoder|decoder)\.layers\.(\d+)\.(weight|bias)", r"\1.layers.\2.conv.\3"),
        Rule(r"(encoder|decoder)\.layers\.(\d+)\.(alpha|beta)", r"\1.layers.\2.\3", _column),
        Rule(BLOCK + r"(weight|bias)", r"\1.layers.\2.\3.conv.\4"),
        Rule(BLOCK + r"(alpha|beta)", r"\1.layers.\2.\3.\4", _column),
        Rule(BLOCK + r"layers\.(\d+)\.(weight|bias)", r"\1.layers.\2.\3.branch.\4.conv.\5"),
        Rule(BLOCK + r"layers\.(\d+)\.(alpha|beta)", r"\1.layers.\2.\3.branch.\4.\5", _column),
        Rule(LAYER + r"pre_norm\.gamma", inside("norm1.weight")),
        Rule(LAYER + r"ff_norm\.gamma", inside("norm2.weight")),
        drop(LAYER + r"(pre_norm|ff_norm)\.beta", "zeros, which are never trained"),
        drop(LAYER + r"rope\.inv_freq", "computed"),
        Rule(LAYER + r"self_attn\.to_qkv\.weight", inside("attn.qkv.weight")),
        Rule(LAYER + r"self_attn\.to_out\.weight", inside("attn.proj.weight")),
        Rule(LAYER + r"self_attn\.([qk]_norm\.(?:weight|bias))", inside("attn.{}")),
        Rule(LAYER + r"self_attn_scale\.scale", inside("scale1")),
        Rule(LAYER + r"ff_scale\.scale", inside("scale2")),
        Rule(LAYER + r"ff\.ff\.0\.proj\.(weight|bias)", inside("mlp.up.{}"), _gate_first),
        Rule(LAYER + r"ff\.ff\.2\.(weight|bias)", inside("mlp.down.{}")),
        drop(r"bottleneck\..*", "levels, which the config has"),
    ]


def _layer_key(name: str) -> Callable[[re.Match[str]], str]:
    """Return where a tensor of a layer goes; upstream counts layers from 1."""

    def target(match: re.Match[str]) -> str:
        side, block, place, layer, *rest = match.groups()
        part = f"{side}.layers.{block}.{place}.layers.{int(layer) - 1}."
        return part + (name.replace("{}", rest[0]) if rest else name)

    return target


def _column(values: Tensor) -> Tensor:
    """Return the numbers of channels ``(C, 1)``."""
    return values[:, None]


def _gate_first(rows: Tensor) -> Tensor:
    """Return value and gate in our order."""
    value, gate = rows.chunk(2)
    return torch.cat([gate, value])


def _strided(state: Mapping[str, Tensor], block: int) -> Tensor:
    """Return the weight of the strided convolution of a block of the encoder."""
    pattern = rf"encoder\.layers\.{block}\.layers\.\d+\.weight"
    for key, value in state.items():
        if re.fullmatch(pattern, key):
            return value
    raise KeyError(f"encoder.layers.{block}.layers.1.weight_v")


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if not any(key.endswith("self_attn.to_qkv.weight") for key in state):
        return "one without transformer layers"
    return None


FAMILY = Family(configure, rules, check=check, prepare=prepare)
