"""LlamaGen's VQ-8 and VQ-16: VQGAN's network around few, normalised channels.

Reference:
    Sun et al., Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation, 2024,
    https://arxiv.org/abs/2406.06525, section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, drop, rename
from tokenizers_vq.published.vqgan_keys import (
    constructor,
    llamagen_levels,
    llamagen_rules,
    network,
)
from tokenizers_vq.published.wrappers import agree, check_config

WHERE = "from_published('llamagen')"
VALUES = (
    "ch", "ch_mult", "encoder_ch_mult", "decoder_ch_mult", "num_res_blocks", "z_channels",
    "codebook_size", "codebook_embed_dim", "codebook_l2_norm", "l2_norm", "codebook_show_usage",
    "commit_loss_beta", "entropy_loss_ratio", "dropout_p", "dropout", "in_channels",
    "out_channels", "norm_type", "resamp_with_conv",
)  # fmt: skip


def rules(levels: int) -> list[Rule]:
    """Return the rules of a network with that many levels."""
    return [
        Rule(r"quantize\.embedding\.weight", "quantizer.codebook"),
        drop(r"quantize\.codebook_used", "which codes the last batches used"),
        *llamagen_rules(levels),
    ]


def configure(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer that the tensors fit; see ``Family.configure``.

    Raises:
        ConfigError: a constructor value that LlamaGen does not have.
        CheckpointError: a constructor value that the tensors contradict.
    """
    check_config(given, VALUES, WHERE)
    ours = rename(state, rules(llamagen_levels(state)), WHERE)
    size, width = ours["quantizer.codebook"].shape
    built = network(ours, width, WHERE)
    built["quantizer"] = codebook(size, given)
    agree(given, {"codebook_size": size, "codebook_embed_dim": width}, WHERE)
    found = constructor(built)
    agree(given, {**found, "encoder_ch_mult": found["ch_mult"]}, WHERE)
    return built


def codebook(size: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return LlamaGen's quantizer: normalised unless a constructor value says otherwise."""
    cosine = given.get("l2_norm", given.get("codebook_l2_norm", True))
    return {
        "name": "vq",
        "codebook_size": size,
        "metric": "cosine" if cosine else "euclidean",
        "commitment_weight": given.get("commit_loss_beta", 0.25),
        "entropy_weight": given.get("entropy_loss_ratio", 0.0),
        "restart_threshold": 0.0,
    }


FAMILY = Family(configure, lambda config: rules(len(config["encoder"]["channel_mult"])))
