"""Checkpoints of WavTokenizer, 75 and 40 tokens per second of 24 kHz.

Their files hold a second decoder, of EnCodec's shape, which the authors' code never runs; it is
left out.

Reference:
    Ji et al., WavTokenizer: an Efficient Acoustic Discrete Codec Tokenizer for Audio Language
    Modeling, 2024, https://arxiv.org/abs/2408.16532, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, drop
from tokenizers_vq.published.seanet_keys import codebook_rules, network_rules, residual_codebooks
from tokenizers_vq.published.vocos_keys import (
    DEAD,
    decoder_of,
    decoder_rules,
    encoder_of,
    prepare,
    stride_of,
    values_of,
)

WHERE = "from_published('wavtokenizer')"


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    given = values_of(config)
    network = encoder_of(state, given, WHERE)
    rate = int(given.get("sample_rate", 24000))
    return {
        "signal": {"kind": "audio", "channels": network["channels"], "sample_rate": rate},
        "dim": network["dim"],
        "encoder": network["part"],
        "quantizer": residual_codebooks(state, {}, WHERE)["stages"]["of"],
        "decoder": decoder_of(state, given, WHERE, stride_of(network)),
    }


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if not any(key.startswith("backbone.pos_net.") for key in state):
        return "one without backbone.pos_net, the attention in front of the decoder"
    if any(key.startswith("quantizer.vq.layers.1.") for key in state):
        return "one with more than one codebook"
    return None


def rules(_: Mapping[str, Any]) -> list[Rule]:
    """Return the rules from upstream keys to those of a tokenizer."""
    codebook = [
        replace(rule, target=str(rule.target).replace(r"stages.\1.", ""))
        for rule in codebook_rules()
    ]
    return [drop(r"decoder\..*", DEAD), *network_rules(), *codebook, *decoder_rules()]


FAMILY = Family(configure, rules, check=check, prepare=prepare)
