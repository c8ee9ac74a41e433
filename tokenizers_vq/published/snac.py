"""Checkpoints of SNAC: codes at several rates.

Reference:
    Siuzdak et al., SNAC: Multi-Scale Neural Audio Codec, 2024, https://arxiv.org/abs/2410.14411.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.dac_keys import (
    Layout,
    codebook_rules,
    factorized,
    layer_rules,
    network,
    ratios_of,
)
from tokenizers_vq.published.importing import Family, require
from tokenizers_vq.published.keys import fold_weight_norm
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('snac')"
# by ratios: values of the published networks that the tensors do not determine
PUBLISHED: dict[tuple[int, ...], dict[str, Any]] = {
    (2, 4, 8, 8): {"vq_strides": [4, 2, 1], "sampling_rate": 24000},
    (2, 3, 8, 8): {"vq_strides": [8, 4, 2, 1], "attn_window_size": 32},
}
RULES = (
    *layer_rules(r"encoder\.block", r"decoder\.model"),
    *codebook_rules(r"quantizer\.quantizers", "codebook", r"quantizer.inner.\1."),
)


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values.

    The sample rate, the strides of the codebooks and the window of the attention are not in the
    tensors. Those of the published networks are known, but for the rate of the two larger ones,
    which have the same shapes.
    """
    stages = factorized(state, "quantizer.quantizers")
    usual = PUBLISHED.get(tuple(ratios_of(state, "encoder.block", r"block\.4")), {})
    given = {**(usual if len(usual.get("vq_strides", ())) == len(stages) else {}), **config}
    strides = [int(stride) for stride in require(given, "vq_strides", "snac")]
    attention = any(key.endswith("to_qkv.weight") for key in state)
    window = int(require(given, "attn_window_size", "snac")) if attention else 0
    ways = {
        "depthwise": state["decoder.model.0.weight"].shape[1] == 1,
        "attention": window,
        "plain_end": True,
        "noise": any(".linear." in key for key in state),
        "weight_norm": False,
        "multiple": math.lcm(strides[0], window or 1),
    }
    built = network(state, Layout("encoder.block", "decoder.model"), ways)
    found = {
        "encoder_rates": built["encoder"]["ratios"],
        "decoder_rates": built["decoder"]["ratios"],
        "codebook_size": stages[0]["codebook_size"],
        "noise": ways["noise"],
        "depthwise": ways["depthwise"],
    }
    agree(given, found, WHERE)
    built["signal"]["sample_rate"] = int(require(given, "sampling_rate", "snac"))
    built["quantizer"] = {"name": "temporal_scales", "inner": stages, "strides": strides}
    return built


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if "quantizer.quantizers.0.in_proj.weight" not in state:
        return "one without quantizer.quantizers.0.in_proj"
    return None


FAMILY = Family(configure, rules=lambda _: RULES, check=check, prepare=fold_weight_norm)
