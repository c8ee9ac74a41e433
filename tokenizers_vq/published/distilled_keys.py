"""Keys that ALIT and KARL checkpoints share: the base tokenizer and the code painter."""

from collections.abc import Mapping
from typing import Any

from tokenizers_vq.published.importing import Weights
from tokenizers_vq.published.keys import Rule, drop, sizes

BASE = "base_tokenizer.vqgan."


def base_config(state: Weights) -> dict[str, Any]:
    """Return the config of the base's encoder or decoder, from the shapes of its tensors."""
    width = state[f"{BASE}encoder.conv_in.weight"].shape[0]
    levels = sizes(state, rf"{BASE}encoder\.down\.(\d+)\.block")
    blocks = sizes(state, rf"{BASE}encoder\.down\.0\.block\.(\d+)")
    ends = [
        state[f"{BASE}encoder.down.{i}.block.{blocks - 1}.norm2.weight"].shape[0]
        for i in range(levels)
    ]
    return {
        "name": "cnn2d",
        "family": "maskgit",
        "dim": state[f"{BASE}encoder.conv_out.weight"].shape[0],
        "width": width,
        "channel_mult": [end // width for end in ends],
        "blocks": blocks,
        "conventions": {"down": "average"},
    }


def base_rules() -> list[Rule]:
    """Return the rules of the base: MaskGIT's network under its taming names."""
    base = BASE.replace(".", r"\.")
    inner = r"(.*)"
    homes = (("encoder", "encoder.image.base."), ("decoder", "decoder.painter.base."))
    rules = []
    for side, home in homes:
        rules += [
            Rule(
                rf"{base}{side}\.mid\.block_(\d+)\.{inner}",
                lambda match, home=home: f"{home}mid.{int(match[1]) - 1}.{match[2]}",  # type: ignore[misc]
            ),
            Rule(rf"{base}{side}\.up\.(\d+)\.upsample\.{inner}", rf"{home}up.\1.resample.\2"),
            Rule(rf"{base}{side}\.{inner}", rf"{home}\1"),
        ]
    codebook = Rule(rf"{base}quantize\.embedding\.weight", "decoder.painter.codebook")
    discriminators = drop(r"gan_losses\..*", "losses of the second stage of training")
    return [*rules, codebook, discriminators]


def heads_of(config: Mapping[str, Any], side: str, layers: int) -> int:
    """Return the attention heads; the published sizes have as many as layers."""
    return int(config.get(f"{side}_num_heads", config.get("heads", layers)))


def quantizer_config(state: Weights, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the quantizer between encoder and decoder."""
    return {
        "name": "vq",
        "codebook_size": state["quantize.embedding.weight"].shape[0],
        "metric": "cosine" if config.get("vq_use_l2_norm", True) else "euclidean",
        "commitment_weight": config.get("vq_commitment_cost", 0.25),
    }
