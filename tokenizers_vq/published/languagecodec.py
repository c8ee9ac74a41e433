"""Checkpoints of Language-Codec, 75 frames of 8 codebooks per second of 24 kHz.

Their files hold a second decoder, of EnCodec's shape, which the authors' code never runs; it is
left out.

Reference:
    Ji et al., Language-Codec: Reducing the Gaps Between Discrete Codec Representation and Speech
    Language Models, 2024, https://arxiv.org/abs/2402.12208, section 3.
    Differs from the released code: its quantizer's ``encode`` gives other indices than its training
    and its ``infer``; these here are those of ``infer``.
"""

from __future__ import annotations

from collections.abc import Mapping
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

WHERE = "from_published('languagecodec')"


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    given = values_of(config)
    network = encoder_of(state, given, WHERE)
    rate = int(given.get("sample_rate", 24000))
    return {
        "signal": {"kind": "audio", "channels": network["channels"], "sample_rate": rate},
        "dim": network["dim"],
        "encoder": network["part"],
        "quantizer": {**residual_codebooks(state, {}, WHERE), "name": "mcrvq"},
        "decoder": decoder_of(state, given, WHERE, stride_of(network)),
    }


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if any(key.startswith("backbone.pos_net.") for key in state):
        return "one with backbone.pos_net, which is WavTokenizer's"
    if not any(key.startswith("quantizer.vq.layers.2.") for key in state):
        return "one with less than the three codebooks that see a part of the channels each"
    return None


def rules(_: Mapping[str, Any]) -> list[Rule]:
    """Return the rules from upstream keys to those of a tokenizer."""
    return [drop(r"decoder\..*", DEAD), *network_rules(), *codebook_rules(), *decoder_rules()]


FAMILY = Family(configure, rules, check=check, prepare=prepare)
