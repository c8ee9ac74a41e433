"""Checkpoints of WeTok: several lookup-free indices per position, and generative decoders.

Reference:
    Zhuang et al., WeTok: Powerful Discrete Tokenization for High-Fidelity Visual Reconstruction,
    2025, https://arxiv.org/abs/2508.05599.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.magvit2_keys import (
    MODEL,
    RULES,
    index_bits,
    read_values,
    sign_head,
    tokenizer_config,
)
from tokenizers_vq.published.open_magvit2 import check
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('wetok')"
BITS = 8  # of each index of all published models; config says it where it is another


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values.

    With ``token_factorization`` the indices are those that the language model predicts, of
    ``factorized_bits`` bits each; ``use_GFQ`` allows more than two of them.
    """
    trunk, given = read_values(state, config, MODEL, WHERE)
    bits = index_bits(given, _groups(trunk.dim, given), trunk.dim, WHERE)
    built = tokenizer_config(state, trunk, sign_head(bits))
    agree(given, {"gan_decoder": "noise_channels" in built["decoder"]}, WHERE)
    return built


def _groups(dim: int, given: Mapping[str, Any]) -> int:
    """Return the number of groups: given, or of as many codes as given, or of 8 bits."""
    bits = (int(given["n_embed"]) - 1).bit_length() if "n_embed" in given else BITS
    groups = int(given["num_codebooks"]) if "num_codebooks" in given else dim // bits
    if groups < 1 or dim % groups or ("num_codebooks" not in given and dim % bits):
        raise ConfigError(
            f"{WHERE}: expected num_codebooks that divides the {dim} channels of the latents; got "
            f"{groups}. Pass num_codebooks and n_embed of the published model."
        )
    return groups


FAMILY = Family(configure, rules=lambda _: RULES, check=check)
