"""The speech tokenizer of GLM-4-Voice: half of Whisper's encoder, pooled, with codes; encode only.

What is behind the codebook, a second table of positions and further layers, teaches it and is left
out. Its authors code the pieces of a batch as long as the longest; here each is coded by itself.

Reference:
    Zeng et al., GLM-4-Voice: Towards Intelligent and Human-Like End-to-End Spoken Chatbot, 2024,
    https://arxiv.org/abs/2412.02612, section 2.1; Zeng et al., Scaling Speech-Text Pre-training
    with Synthetic Interleaved Data, 2024, https://arxiv.org/abs/2411.17607, section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family, require
from tokenizers_vq.published.keys import Rule, State, drop, keep, sizes
from tokenizers_vq.published.whisper_keys import TRANSFORMERS, heads_of, layer_rules, widths_of
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('glm4_voice')"
FAMILY_NAME = "glm4_voice"
PREFIXES = ("model.encoder.", "encoder.")
POOLS = {"avg": "mean", "max": "max"}
LAYERS = 16  # in front of the codebook, where the config does not say
HOP = 160
CODES = 16384  # of the published tokenizer, whose config.json is this
PUBLISHED: dict[str, Any] = {
    "encoder_attention_heads": 20,
    "encoder_causal_convolution": True,
    "pooling_kernel_size": 4,
    "pooling_position": 16,
    "pooling_type": "avg",
    "quantize_causal_block_size": 200,
    "quantize_position": 16,
}


def prepare(state: Mapping[str, Tensor]) -> State:
    """Return the tensors of the encoder without the prefix of the recogniser it was cut from."""
    for prefix in PREFIXES:
        if inside := keep(state, prefix):
            return inside
    return dict(state)


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    shape = widths_of(state, "", "layers.0.fc1.weight")
    codes = state["codebook.weight"].shape[0]
    config = config or (PUBLISHED if codes == CODES else {})
    positions = state["embed_positions.weight"].shape[0]
    found = {
        "d_model": shape["width"],
        "num_mel_bins": shape["mels"],
        "encoder_ffn_dim": shape["hidden"],
        "max_source_positions": positions,
        "quantize_vocab_size": codes,
    }
    agree(config, found, WHERE)
    layers = min(int(config.get("quantize_position", LAYERS)), sizes(state, r"layers\.(\d+)\."))
    ways = {**pooling(state, config, layers), "positions": positions, "norm": False}
    ways["causal"] = bool(config.get("encoder_causal_convolution", False))
    ways["block"] = config.get("quantize_causal_block_size")
    stride = 2 * HOP * ways["pool"]
    second = positions // ways["pool"] * stride
    network = {
        **shape,
        "name": "whisper",
        "heads": heads_of(shape["width"], config.get("encoder_attention_heads"), WHERE),
        "layers": layers,
        "windows": {"length": second, "step": second},
        "conventions": ways,
    }
    teaching = "ema" if "ema_count" in state else "gradient"
    return {
        "signal": {"kind": "audio", "channels": 1, "sample_rate": 16000},
        "dim": shape["width"],
        "encoder": network,
        "quantizer": {"name": "vq", "codebook_size": codes, "codebook_update": teaching},
        "decoder": {"name": "absent", "stride": [stride]},
    }


def pooling(state: Mapping[str, Tensor], config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Return what the encoder pools: what the config leaves out has the defaults of the class.

    Raises:
        ConfigError: the tensors show that it pools, and the config does not say how.
    """
    second = state.get("embed_positions2.weight")
    if second is not None and second.shape[0] != state["embed_positions.weight"].shape[0]:
        require(config, "pooling_kernel_size", FAMILY_NAME)
    size, after = config.get("pooling_kernel_size"), int(config.get("pooling_position") or 0)
    if size is None or not 1 <= after <= layers:  # as in the authors' code
        return {"pool": 1}
    kind = str(config.get("pooling_type", "max"))
    return {"pool": int(size), "pool_kind": POOLS.get(kind, kind), "pool_after": after}


def rules(built: Mapping[str, Any]) -> list[Rule]:
    """Return the rules from upstream keys to those of a tokenizer."""
    layers = built["encoder"]["layers"]
    behind = "|".join(str(n) for n in range(layers, 100))
    return [
        drop(rf"layers\.({behind})\..*", "layers behind the codebook"),
        drop(r"embed_positions2\.weight", "positions of what is behind the codebook"),
        drop(r"layer_norm\.(weight|bias)", "the norm behind the last layer"),
        Rule(r"(conv[12])\.(weight|bias)", r"encoder.\1.\2"),
        Rule(r"embed_positions\.weight", "encoder.stack.positions"),
        *layer_rules(TRANSFORMERS, r"layers\.", "encoder.stack.layers."),
        Rule(r"codebook\.weight", "quantizer.codebook"),
        Rule(r"ema_count", "quantizer.cluster_size"),
        Rule(r"ema_weight", "quantizer.cluster_sum"),
    ]


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if "codebook.weight" not in state or "embed_positions.weight" not in state:
        return "one without codebook.weight and embed_positions.weight of an encoder"
    return None


FAMILY = Family(configure, rules, check=check, prepare=prepare)
