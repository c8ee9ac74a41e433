"""Checkpoints of DAC: the package's files, and the ones of the transformers library.

Reference:
    Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, 2023,
    https://arxiv.org/abs/2306.06546.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.dac_keys import RULES, Layout, factorized, network, ratios_of
from tokenizers_vq.published.importing import Family, require
from tokenizers_vq.published.keys import State, fold_weight_norm
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('dac')"
# by samples per latent and codebooks, where the config does not say
RATES = {(512, 9): 44100, (512, 18): 44100, (320, 32): 24000, (320, 12): 16000}
# What the two projects call the same constructor value.
NAMES = {
    "sampling_rate": "sample_rate",
    "encoder_hidden_size": "encoder_dim",
    "decoder_hidden_size": "decoder_dim",
    "hidden_size": "latent_dim",
    "downsampling_ratios": "encoder_rates",
    "upsampling_ratios": "decoder_rates",
}


def prepare(state: Mapping[str, Tensor]) -> State:
    """Return the tensors without weight normalisation, under the names of the package."""
    state = fold_weight_norm(state)
    if "encoder.conv1.weight" not in state:
        return state
    blocks = max(int(key.split(".")[2]) for key in state if key.startswith("encoder.block.")) + 1
    return {_package_key(key, blocks): value for key, value in state.items()}


def _package_key(key: str, blocks: int) -> str:
    """Return the package's name of a tensor that transformers names ``key``."""
    side, _, rest = key.partition(".")
    if side not in ("encoder", "decoder"):
        return key
    first = 0 if side == "encoder" else 2  # place of the first residual unit in a level
    ends = {"conv1": 0, "snake1": blocks + 1, "conv2": blocks + 2}
    layers = "block" if side == "encoder" else "model"
    match = re.fullmatch(r"block\.(\d+)\.(?:res_unit(\d)\.)?(\w+)\.(\w+)", rest)
    if match is None:
        name, _, leaf = rest.partition(".")
        return f"{side}.{layers}.{ends[name]}.{leaf}" if name in ends else key
    block, unit, name, leaf = match.groups()
    if unit is None:
        inside = {"snake1": 3 - 3 * (first > 0), "conv1": 4, "conv_t1": 1}[name]
        return f"{side}.{layers}.{int(block) + 1}.block.{inside}.{leaf}"
    inside = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}[name]
    place = int(unit) - 1 + first
    return f"{side}.{layers}.{int(block) + 1}.block.{place}.block.{inside}.{leaf}"


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values.

    The sample rate is the only one that the tensors do not determine; those of the published sizes
    are known.
    """
    given = {NAMES.get(key, key): value for key, value in config.items()}
    layout = Layout("encoder.block", "decoder.model", ".weight")
    stages = factorized(state, "quantizer.quantizers")
    found = {
        "encoder_rates": ratios_of(state, layout.encoder, r"block\.4"),
        "decoder_rates": ratios_of(state, layout.decoder, r"block\.1"),
        "n_codebooks": len(stages),
        "codebook_size": stages[0]["codebook_size"],
        "encoder_dim": int(state["encoder.block.0.weight"].shape[0]),
        "decoder_dim": int(state["decoder.model.0.weight"].shape[0]),
    }
    agree(given, found, WHERE)
    built = network(state, layout, {"weight_norm": False, "whole": False})
    usual = RATES.get((math.prod(found["encoder_rates"]), len(stages)))
    given = {"sample_rate": usual, **given} if usual else given
    built["signal"]["sample_rate"] = int(require(given, "sample_rate", "dac"))
    built["quantizer"] = {"name": "residual", "stages": stages}
    return built


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if "quantizer.quantizers.0.in_proj.weight" not in state:
        return "one without quantizer.quantizers.0.in_proj"
    if "decoder.model.0.weight" in state and state["decoder.model.0.weight"].shape[1] == 1:
        return "one with depthwise convolutions, such as SNAC"
    return None


FAMILY = Family(configure, rules=lambda _: RULES, check=check, prepare=prepare)
