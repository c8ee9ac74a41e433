"""FQGAN, dual and triple: LlamaGen's network with an adapter and a codebook per kind of content.

Indices and channels come in the order details, (middle and high) meaning: the order in which the
published decoder reads them. The heads that predict representations of CLIP and DINO serve training
alone and are left out, knowingly.

Reference:
    Bai et al., Factorized Visual Tokenization and Generation, 2024,
    https://arxiv.org/abs/2411.16681.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, State, drop, rename, sizes
from tokenizers_vq.published.llamagen import VALUES, codebook
from tokenizers_vq.published.vit_keys import block_rules
from tokenizers_vq.published.vqgan_keys import (
    LEAF,
    constructor,
    llamagen_levels,
    llamagen_rules,
    network,
)
from tokenizers_vq.published.wrappers import agree, check_config

WHERE = "from_published('fqgan')"
HEADS = 8  # of every published adapter
ADAPTERS = {  # ours, by what theirs and their last convolutions are called
    "visual_head": 0, "vis": 0, "semantic_head": 1, "sem": 1, "semantic_head_mid": 1, "sem_mid": 1,
    "semantic_head_high": 2, "sem_high": 2,
}  # fmt: skip
OWN_VALUES = (
    "adapter", "with_clip_supervision", "with_disentanglement", "disentanglement_ratio",
    "entropy_loss_weight", "down_factor",
)  # fmt: skip


def rules(levels: int) -> list[Rule]:
    """Return the rules of a network with that many levels."""
    own: list[Rule] = []
    for name, k in ADAPTERS.items():
        if "head" in name:
            theirs, ours = rf"encoder\.{name}\.0\.", f"encoder.adapters.{k}."
            own += [
                Rule(rf"{theirs}positional_embedding", f"{ours}positions"),
                Rule(rf"{theirs}ln_pre\.{LEAF}", rf"{ours}transformer.norm_in.\1"),
                Rule(rf"{theirs}ln_post\.{LEAF}", rf"{ours}transformer.norm_out.\1"),
                *block_rules(rf"{theirs}transformer\.", f"{ours}transformer.blocks."),
            ]
        else:
            own += [
                Rule(
                    rf"encoder\.(norm|conv)_out_{name}\.{LEAF}", rf"encoder.adapters.{k}.\1_out.\2"
                ),
                Rule(rf"quant_conv_{name}\.{LEAF}", rf"encoder.adapters.{k}.quant_conv.\1"),
                Rule(rf"quantize_{name}\.embedding\.weight", f"quantizer.groups.{k}.codebook"),
                drop(rf"quantize_{name}\.codebook_used", "which codes the last batches used"),
            ]
    return [
        *own,
        drop(r"(?:feat_pred_head|\w+_feat_pred)\..*", "predicts representations, in training"),
        *llamagen_rules(levels),
    ]


def configure(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer that the tensors fit; see ``Family.configure``.

    Raises:
        ConfigError: a constructor value that FQGAN does not have.
        CheckpointError: a constructor value that the tensors contradict.
    """
    check_config(given, (*VALUES, *OWN_VALUES), WHERE)
    ours = rename(state, rules(llamagen_levels(state)), WHERE)
    size, width = ours["quantizer.groups.0.codebook"].shape
    count = sizes(ours, r"quantizer\.groups\.(\d+)\.")
    built = network(ours, width * count, WHERE)
    shared = {
        key: built["encoder"][key] for key in ("width", "channel_mult", "blocks", "z_channels")
    }
    built["encoder"] = {"name": "fqgan", **shared, "codebooks": count}
    built["encoder"] |= _adapter(ours, built["decoder"]["stride"], given.get("adapter") or {})
    built["decoder"] = {"name": "fqgan", **shared}
    group = codebook(size, given)
    built["quantizer"] = {
        "name": "grouped",
        "groups": [{**group, "dim": width} for _ in range(count)],
        "disentangle_weight": given.get("disentanglement_ratio", 0.0),
    }
    agree(given, {"codebook_size": size, "codebook_embed_dim": width}, WHERE)
    found = constructor(built)
    agree(given, {**found, "encoder_ch_mult": found["ch_mult"]}, WHERE)
    return built


def _adapter(ours: State, stride: int, given: Mapping[str, Any]) -> dict[str, Any]:
    positions, width = ours["encoder.adapters.0.positions"].shape
    layers = sizes(ours, r"encoder\.adapters\.0\.transformer\.blocks\.(\d+)\.")
    agree(given, {"width": width, "layers": layers}, f"{WHERE} adapter")
    return {
        "size": math.isqrt(positions) * stride,
        "layers": layers,
        "heads": given.get("heads", HEADS),
    }


FAMILY = Family(configure, lambda config: rules(len(config["encoder"]["channel_mult"])))
