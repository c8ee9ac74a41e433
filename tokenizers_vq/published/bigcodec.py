"""Checkpoints of BigCodec: one large codebook for speech.

Reference:
    Xin et al., BigCodec: Pushing the Limits of Low-Bitrate Neural Speech Codec, 2024,
    https://arxiv.org/abs/2409.05377.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.dac_keys import (
    Layout,
    codebook_rules,
    factorized,
    layer_rules,
    network,
)
from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import fold_weight_norm, sizes
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('bigcodec')"
SAMPLE_RATE = 16000
LAYERS = "generator.quantizer.layers"
NETWORKS = layer_rules(r"CodecEnc\.block", r"generator\.model")


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors; the values have to agree with them."""
    stages = factorized(state, LAYERS, "_codebook")
    built = network(state, Layout("CodecEnc.block", "generator.model"), {})
    lstm = sizes(state, r"CodecEnc\.block\.\d+\.lstm\.weight_ih_l(\d+)$")
    ways = {
        "activation": "snake_beta", "lstm": lstm, "weight_norm": False, "extra_frame": True,
    }  # fmt: skip
    for side in ("encoder", "decoder"):
        built[side]["conventions"] = dict(ways)
        given = config.get(side)
        found = {"up_ratios": built[side]["ratios"], "rnn_num_layers": lstm or None}
        agree(given if isinstance(given, Mapping) else {}, found, WHERE)
    built["signal"]["sample_rate"] = int(config.get("sample_rate", SAMPLE_RATE))
    built["quantizer"] = stages[0] if len(stages) == 1 else {"name": "residual", "stages": stages}
    return built


def rules(built: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the rules from upstream keys to ours."""
    single = built["quantizer"]["name"] == "factorized"
    ours = "quantizer." if single else r"quantizer.stages.\1."
    return (
        *NETWORKS,
        *codebook_rules(r"generator\.quantizer\.layers", "_codebook", ours),
    )


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if not any(key.startswith("CodecEnc.") for key in state):
        return "one without CodecEnc, the encoder"
    return None


FAMILY = Family(configure, rules=rules, check=check, prepare=fold_weight_norm)
