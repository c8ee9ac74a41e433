"""Checkpoints of ALIT on top of the VQGAN of MAGE.

Reference:
    Duggal et al., 2024, https://arxiv.org/abs/2411.02393;
    https://github.com/ShivamDuggal4/adaptive-length-tokenizer
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers_vq.published.distilled_keys import (
    base_config,
    base_rules,
    heads_of,
    quantizer_config,
)
from tokenizers_vq.published.importing import Family, Weights
from tokenizers_vq.published.keys import Rule, sizes
from tokenizers_vq.published.vit_keys import block_rules
from tokenizers_vq.published.wrappers import check_config

KNOWN = (
    *("width", "layers", "heads", "encoder_width", "encoder_num_layers", "encoder_num_heads"),
    *("decoder_width", "decoder_num_layers", "decoder_num_heads", "quantize_latent"),
    *("factorize_latent", "vq_codebook_size", "vq_token_dim", "vq_commitment_cost"),
    *("vq_use_l2_norm", "num_init_latent_tokens", "img_size", "patch_size", "max_rollout_iters"),
    *("dynamic_halting", "dynamic_halting_threshold", "train_stage", "base", "base_tokenizer_args"),
    *("desired_reconstruction_quality", "visualize_decoder_attn_weights"),
)


def configure(state: Weights, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return our config of a checkpoint; only the numbers of heads are not in its shapes.

    Raises:
        ConfigError: a constructor value does not exist.
    """
    check_config(config, KNOWN, "from_published('alit')")
    rollouts, tokens, _ = state["timestep_embedding"].shape
    patch = state["patch_embed.weight"].shape[-1]
    side = round((state["encoder_positional_embedding"].shape[0] - 1) ** 0.5)
    shared = {
        "name": "alit",
        "base": base_config(state),
        "size": patch * side,
        "per_rollout": tokens,
        "rollouts": rollouts,
    }
    layers = {
        part: sizes(state, rf"{part}\.transformer\.(\d+)\.") for part in ("encoder", "decoder")
    }
    return {
        "signal": {"kind": "image", "channels": 3},
        "dim": state["pre_quantizer_mlp.weight"].shape[0],
        "encoder": {
            **shared,
            "width": state["latent_tokens"].shape[1],
            "layers": layers["encoder"],
            "heads": heads_of(config, "encoder", layers["encoder"]),
        },
        "quantizer": quantizer_config(state, config),
        "decoder": {
            **shared,
            "width": state["decoder_mask_token"].shape[-1],
            "layers": layers["decoder"],
            "heads": heads_of(config, "decoder", layers["decoder"]),
            "codes": state["base_tokenizer.vqgan.quantize.embedding.weight"].shape[0],
        },
    }


def rules(config: Mapping[str, Any]) -> Sequence[Rule]:
    """Return the rules from upstream keys to ours."""
    both = r"(weight|bias)"
    return [
        *base_rules(),
        *block_rules(r"encoder\.transformer\.", "encoder.rows.blocks."),
        *block_rules(r"decoder\.transformer\.", "decoder.rows.blocks."),
        Rule(r"(encoder|decoder)_positional_embedding", r"\1.position"),
        Rule(r"(encoder|decoder)_class_embedding", r"\1.cls"),
        Rule(r"(encoder|decoder)_mask_token", r"\1.mask_token"),
        Rule(r"latent_tokens", "encoder.latents"),
        Rule(r"latent_token_positional_embedding", "encoder.latent_position"),
        Rule(r"timestep_embedding", "encoder.rollout_position"),
        Rule(rf"encoder_ln_pre\.{both}", r"encoder.norm_in.\1"),
        Rule(rf"encoder_ln_recursive\.{both}", r"encoder.norm_again.\1"),
        Rule(rf"encoder_ln_post\.{both}", r"encoder.norm_out.\1"),
        Rule(rf"pre_quantizer_mlp\.{both}", r"encoder.project.\1"),
        Rule(rf"patch_embed\.{both}", r"encoder.image.patch.\1"),
        Rule(r"quantize\.embedding\.weight", "quantizer.codebook"),
        Rule(r"decoder\.latent_token_positional_embedding", "decoder.latent_position"),
        Rule(rf"decoder\.decoder_embed\.{both}", r"decoder.embed.\1"),
        Rule(rf"decoder\.ln_pre\.{both}", r"decoder.norm_in.\1"),
        Rule(rf"decoder\.ln_post\.{both}", r"decoder.norm_out.\1"),
        Rule(rf"decoder\.ffn\.(\d)\.{both}", r"decoder.painter.head.\1.\2"),
    ]


def check(state: Weights) -> str | None:
    """Say why tensors are not of this family."""
    if "timestep_embedding" not in state:
        return "one without a timestep_embedding"
    if not any(key.startswith("base_tokenizer.vqgan.") for key in state):
        return "one on another base than the VQGAN of MAGE"
    return None


FAMILY = Family(configure, rules, check=check)
