"""Checkpoints of KARL on top of the VQGAN of MAGE.

Upstream reads the base's latents by a reshape that equals a transpose only where there are as many
channels as positions; so these weights take the one size they were trained for.

Reference:
    Duggal et al., 2025, https://arxiv.org/abs/2507.07995; https://github.com/ShivamDuggal4/karl
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
    *("vq_use_l2_norm", "num_init_latent_tokens", "patch_size", "max_rollout_iters"),
    *("dynamic_halting", "dynamic_halting_threshold", "max_grid_tokens", "train_stage", "base"),
    *("base_tokenizer_args", "desired_reconstruction_quality", "input_token_budget"),
)


def configure(state: Weights, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return our config of a checkpoint; only the numbers of heads are not in its shapes.

    Raises:
        ConfigError: a constructor value does not exist.
    """
    check_config(config, KNOWN, "from_published('karl')")
    patch = state["patch_embed.weight"].shape[-1]
    base = base_config(state)
    shared = {
        "name": "karl",
        "base": base,
        # as many positions as channels, which is what upstream's reshape works for
        "size": patch * round(base["dim"] ** 0.5),
        "latents": state["latent_tokens"].shape[0],
        "table": state["encoder_positional_embedding"].shape[-1],
    }
    layers = {
        part: sizes(state, rf"{part}\.transformer\.(\d+)\.") for part in ("encoder", "decoder")
    }
    wished = config.get("desired_reconstruction_quality", 0.05)
    budget = config.get("input_token_budget", min(256, shared["latents"]))
    budget = budget[0] if isinstance(budget, Sequence) else budget
    return {
        "signal": {"kind": "image", "channels": 3},
        "dim": state["pre_quantizer_mlp.weight"].shape[0],
        "encoder": {
            **shared,
            "width": state["latent_tokens"].shape[1],
            "layers": layers["encoder"],
            "heads": heads_of(config, "encoder", layers["encoder"]),
            "target_error": wished,
            "budget": budget,
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
        Rule(r"decoder_mask_token", "decoder.mask_token"),
        Rule(r"decoder_latent_tokens_timestep_embed", "decoder.latent_position"),
        Rule(r"latent_tokens", "encoder.latents"),
        Rule(r"rec_loss_embeddings", "encoder.errors"),
        Rule(rf"encoder_ln_pre\.{both}", r"encoder.norm_in.\1"),
        Rule(rf"encoder_ln_post_halt\.{both}", r"encoder.norm_halt.\1"),
        Rule(rf"encoder_ln_post\.{both}", r"encoder.norm_out.\1"),
        Rule(rf"pre_quantizer_mlp\.{both}", r"encoder.project.\1"),
        Rule(rf"halting_mlp\.(\d)\.{both}", r"encoder.halt.\1.\2"),
        Rule(rf"patch_embed\.{both}", r"encoder.image.patch.\1"),
        Rule(r"quantize\.embedding\.weight", "quantizer.codebook"),
        Rule(rf"decoder_embed\.{both}", r"decoder.embed.\1"),
        Rule(rf"decoder\.ln_pre\.{both}", r"decoder.norm_in.\1"),
        Rule(rf"decoder\.ln_post\.{both}", r"decoder.norm_out.\1"),
        Rule(rf"decoder\.ffn\.(\d)\.{both}", r"decoder.painter.head.\1.\2"),
    ]


def check(state: Weights) -> str | None:
    """Say why tensors are not of this family."""
    if "rec_loss_embeddings" not in state:
        return "one without rec_loss_embeddings"
    if not any(key.startswith("base_tokenizer.vqgan.") for key in state):
        return "one on another base than the VQGAN of MAGE"
    return None


FAMILY = Family(configure, rules, check=check)
