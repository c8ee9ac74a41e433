"""Checkpoints of SimVQ for audio: WavTokenizer's network with a codebook behind one linear map.

Their files hold a second decoder, of EnCodec's shape, which the authors' code never runs; it is
left out.

Reference:
    Zhu et al., Addressing Representation Collapse in Vector Quantized Models with One Linear
    Layer, 2024, https://arxiv.org/abs/2411.02038, section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, drop
from tokenizers_vq.published.seanet_keys import network_rules
from tokenizers_vq.published.vocos_keys import (
    DEAD,
    decoder_of,
    decoder_rules,
    encoder_of,
    prepare,
    stride_of,
    values_of,
)
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('simvq_audio')"


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    given = values_of(config)
    network = encoder_of(state, given, WHERE, causal=bool(given.get("causal", True)))
    codes = state["quantize.embedding.weight"].shape[0]
    agree(given, {"n_e": codes}, WHERE)
    rate = int(given.get("sample_rate", 24000))
    return {
        "signal": {"kind": "audio", "channels": network["channels"], "sample_rate": rate},
        "dim": network["dim"],
        "encoder": network["part"],
        "quantizer": {
            "name": "simvq",
            "codebook_size": codes,
            "bias": "quantize.embedding_proj.bias" in state,
            "commitment_weight": float(given.get("beta", 0.25)),
        },
        "decoder": decoder_of(state, given, WHERE, stride_of(network)),
    }


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if "quantize.embedding_proj.weight" not in state:
        return "one without quantize.embedding_proj, the linear map in front of the codebook"
    if "head.out.weight" not in state:
        return "one without head.out, which is SimVQ for images: import it as 'simvq'"
    return None


def rules(_: Mapping[str, Any]) -> list[Rule]:
    """Return the rules from upstream keys to those of a tokenizer."""
    codebook = [
        Rule(r"quantize\.embedding\.weight", "quantizer.table"),
        Rule(r"quantize\.embedding_proj\.(weight|bias)", r"quantizer.linear.\1"),
    ]
    return [drop(r"decoder\..*", DEAD), *network_rules(), *codebook, *decoder_rules()]


FAMILY = Family(configure, rules, check=check, prepare=prepare)
