"""Checkpoints of MaskBit: lookup-free indices of 10 to 18 bits.

The number of bits is the width of the latents; ``codebook_size`` of the published configurations
is not always that of the model, and is not read.

Reference:
    Weber et al., MaskBit: Embedding-free Image Generation via Bit Tokens, 2024,
    https://arxiv.org/abs/2409.16211, section 4.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import drop
from tokenizers_vq.published.maskgit_keys import read_values, rules, tokenizer_config
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('maskbit')"
CONSTANTS = drop(r"quantize\.(bits_to_indices|codebook)", "powers of two and all sign vectors")


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    trunk, given = read_values(state, config, WHERE)
    agree(given, {"quantizer_type": "lookup-free"}, WHERE)
    head = {
        "name": "lfq",
        "bits": trunk.dim,
        "entropy_weight": float(given.get("entropy_loss_weight", 0.02)),
        "diversity_weight": float(given.get("entropy_gamma", 1.0)),
        "commitment_weight": float(given.get("commitment_cost", 0.25)),
    }
    return tokenizer_config(state, trunk, head)


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if "quantize.embedding.weight" in state:
        return "one with a codebook (families vqgan_plus and maskgit_vqgan)"
    weights = state.get("quantize.bits_to_indices")
    if weights is not None and not torch.equal(weights.long(), 2 ** torch.arange(len(weights))):
        return "one whose first channel is not the lowest bit"
    return None


FAMILY = Family(configure, rules=lambda config: (*rules(config), CONSTANTS), check=check)
