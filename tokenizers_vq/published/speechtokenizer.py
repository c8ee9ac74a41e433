"""SpeechTokenizer and DM-Codec: EnCodec's network with recurrent layers in both directions.

The first codebook was taught by features of a speech model; the linear map to those features is
not part of the tokenizer and is left out.

Reference:
    Zhang et al., SpeechTokenizer: Unified Speech Tokenizer for Speech Language Models, 2023,
    https://arxiv.org/abs/2308.16692, section 3.1;
    Ahasan et al., DM-Codec: Distilling Multimodal Representations for Speech Tokenization, 2024,
    https://arxiv.org/abs/2410.15017, section 3.1 (the same network).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import drop
from tokenizers_vq.published.seanet_keys import (
    codebook_rules,
    network_of,
    network_rules,
    prepare,
    residual_codebooks,
    tokenizer_config,
    values_of,
)

WHERE = "from_published('speechtokenizer')"


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    given = values_of(config)
    network = network_of(state, given, WHERE)
    network["part"]["conventions"] |= {"causal": False, "pad": "reflect"}
    quantizer = residual_codebooks(state, given, WHERE)
    return tokenizer_config(network, quantizer, int(given.get("sample_rate", 16000)))


FAMILY = Family(
    configure,
    rules=lambda _: (
        *network_rules(),
        *codebook_rules(),
        drop(r"transform\.(weight|bias)", "the map to the features that taught the first codebook"),
    ),
    prepare=prepare,
)
