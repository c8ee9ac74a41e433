"""Checkpoints of SimVQ for images: the MAGVIT2 network with a codebook seen through one linear map.

Reference:
    Zhu et al., Addressing Representation Collapse in Vector Quantized Models with One Linear
    Layer, 2024, https://arxiv.org/abs/2411.02038.
    Differs from the released code: indices are decoded through the linear map, as in training.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule
from tokenizers_vq.published.magvit2_keys import (
    AROUND,
    MODEL,
    RULES,
    read_values,
    tokenizer_config,
)
from tokenizers_vq.published.trunk import descend
from tokenizers_vq.published.wrappers import agree, check_config

WHERE = "from_published('simvq')"
HEAD = ("n_e", "e_dim", "beta", "legacy", "remap", "unknown_index", "sane_index_shape")
QUANTIZER = (
    Rule(r"quantize\.embedding\.weight", "quantizer.table"),
    Rule(r"quantize\.embedding_proj\.(weight|bias)", r"quantizer.linear.\1"),
)


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    given = descend(config, *AROUND)
    head = descend(given.pop("quantconfig", {}), "params")
    head.pop("target", None)
    check_config(head, HEAD, WHERE)
    trunk, given = read_values(state, {**given, **head}, (*MODEL, *HEAD), WHERE)
    codes = int(state["quantize.embedding.weight"].shape[0])
    agree(given, {"n_e": codes}, WHERE)
    quantizer = {
        "name": "simvq",
        "codebook_size": codes,
        "bias": "quantize.embedding_proj.bias" in state,
        "commitment_weight": float(given.get("beta", 0.25)),
    }
    return tokenizer_config(state, trunk, quantizer, adaptive=False)


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if "quantize.embedding_proj.weight" not in state:
        return "one without quantize.embedding_proj, the linear map in front of the codebook"
    return None


FAMILY = Family(configure, rules=lambda _: (*RULES, *QUANTIZER), check=check)
