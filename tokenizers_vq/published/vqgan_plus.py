"""Checkpoints of VQGAN+: the network of MaskBit with a learned codebook.

Reference:
    Weber et al., MaskBit: Embedding-free Image Generation via Bit Tokens, 2024,
    https://arxiv.org/abs/2409.16211, section 3.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.maskgit_keys import (
    CODEBOOK,
    read_values,
    rules,
    table_head,
    tokenizer_config,
)
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('vqgan_plus')"


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    trunk, given = read_values(state, config, WHERE)
    agree(given, {"quantizer_type": "lookup"}, WHERE)
    return tokenizer_config(state, trunk, table_head(state, given, WHERE, "codebook_size"))


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if "quantize.embedding.weight" not in state:
        return "one without a codebook (family maskbit has none)"
    return None


FAMILY = Family(configure, rules=lambda config: (*rules(config), CODEBOOK), check=check)
