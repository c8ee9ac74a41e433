"""Checkpoints of Open-MAGVIT2: one lookup-free index of 14 or 18 bits per position.

Reference:
    Luo et al., Open-MAGVIT2: An Open-Source Project Toward Democratizing Auto-regressive Visual
    Generation, 2024, https://arxiv.org/abs/2409.04410.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.magvit2_keys import (
    MODEL,
    RULES,
    index_bits,
    read_values,
    sign_head,
    tokenizer_config,
)

WHERE = "from_published('open_magvit2')"


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    trunk, given = read_values(state, config, MODEL, WHERE)
    bits = index_bits(given, 1, trunk.dim, WHERE)
    return tokenizer_config(state, trunk, sign_head(bits))


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if any(key.startswith("quantize.") for key in state):
        return "one with a codebook (families simvq, ibq, taming have one)"
    if "encoder.mid_block.0.conv1.weight" not in state:
        return "one without encoder.mid_block (families of other CNNs name it mid)"
    if "decoder.adaptive.0.gamma.weight" not in state:
        return "one without adaptive norms (family simvq has none)"
    return None


FAMILY = Family(configure, rules=lambda _: RULES, check=check)
