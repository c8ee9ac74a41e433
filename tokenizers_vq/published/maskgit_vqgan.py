"""Checkpoints of the tokenizer of MaskGIT, as its ports to PyTorch store it.

Reference:
    Chang et al., MaskGIT: Masked Generative Image Transformer, 2022,
    https://arxiv.org/abs/2202.04200.
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

WHERE = "from_published('maskgit_vqgan')"


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    trunk, given = read_values(state, config, WHERE)
    head = table_head(state, given, WHERE, "num_embeddings", "codebook_size")
    return tokenizer_config(state, trunk, head)


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if "quantize.embedding.weight" not in state:
        return "one without a codebook (family maskbit has none)"
    if "encoder.down.0.down_conv.weight" in state:
        return "one with strided convolutions (family vqgan_plus)"
    return None


FAMILY = Family(configure, rules=lambda config: (*rules(config), CODEBOOK), check=check)
