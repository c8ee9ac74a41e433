"""ViT-VQ: the transformers of BSQ-ViT around a codebook, learned or of Leech lattice points.

Reference:
    Zhao et al., Image and Video Tokenization with Binary Spherical Quantization, 2024,
    https://arxiv.org/abs/2406.07548, whose authors released it with their baselines and, later,
    with the 196,560 shortest vectors of the Leech lattice as a frozen codebook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published.bsq_vit import backbone, backbone_rules
from tokenizers_vq.published.importing import Family, Weights
from tokenizers_vq.published.keys import Rule
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('vit_vq')"


def configure(state: Weights, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the tokenizer that ``state`` belongs to.

    The order of the codes is that of the file, also where they are those of a lattice.

    Raises:
        ConfigError: a constructor value is unknown or not supported.
    """
    size = state["quantize.embedding.weight"].shape[0]
    config = backbone(state, values, WHERE)
    unit = values.get("l2_norm", True)
    after = values.get("post_q_l2_norm", unit)
    agree(values, {"n_embed": size, "embed_dim": config["dim"]}, WHERE)
    if after and not unit:
        raise ConfigError(
            f"{WHERE}: expected l2_norm=True where post_q_l2_norm is; got False. No published "
            "model has codes that are normalised behind the search only."
        )
    head = {
        "name": "vq",
        "codebook_size": size,
        "metric": "cosine" if unit else "euclidean",
        "restart_threshold": 0.0,
    }
    return {**config, "quantizer": head}


def rules(config: Mapping[str, Any]) -> Sequence[Rule]:
    """Return the rules from upstream keys to ours."""
    return [*backbone_rules(), Rule(r"quantize\.embedding\.weight", "quantizer.codebook")]


FAMILY = Family(configure, rules)
