"""BSQ-ViT: transformers around binary spherical quantization, 18 or 36 bits.

Reference:
    Zhao et al., Image and Video Tokenization with Binary Spherical Quantization, 2024,
    https://arxiv.org/abs/2406.07548; released by the authors (github.com/zhaoyue-zephyrus/bsq-vit).
    Differs: the index of a token is exact at any number of bits; the released code adds powers of
    two in float32, which is wrong beyond 24 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published.importing import Family, Weights
from tokenizers_vq.published.keys import Rule, drop, sizes
from tokenizers_vq.published.vit_keys import block_rules
from tokenizers_vq.published.wrappers import agree, check_config

VALUES = (
    "vitconfig", "embed_dim", "embed_group_size", "l2_norm", "post_q_l2_norm", "clamp_range",
    "analytic", "n_embed", "logit_laplace", "beta", "gamma0", "gamma", "zeta",
    "persample_entropy_compute", "cb_entropy_compute", "input_format", "inv_temperature",
    "ckpt_path", "ignore_keys", "grad_checkpointing", "selective_checkpointing", "dvitconfig",
    "predefined_codebook", "freeze_codebook",
)  # fmt: skip
FIXED = {  # what would make another network, at the values of all published files
    "num_frames": 1, "ls_init_value": None, "ln_pre": True, "ln_post": True, "act_layer": "gelu",
    "norm_layer": "layer_norm", "use_ffn_output": True, "mask_type": "none",
}  # fmt: skip
VIT = (
    "image_size", "patch_size", "width", "layers", "heads", "mlp_ratio", "drop_rate",
    "attn_drop_rate", "drop_path_rate", "dim_ffn_output", "cross_frames", "mask_block_size",
    "logit_laplace", *FIXED,
)  # fmt: skip
HALVES = ("encoder", "decoder")


def backbone(state: Weights, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the parts ``signal``, ``dim``, ``encoder`` and ``decoder`` of a config.

    Args:
        state: upstream tensors.
        values: upstream constructor values.
        where: the name the messages start with.

    Raises:
        ConfigError: a constructor value is unknown or not supported.
        KeyError: a tensor is missing.
    """
    vit = dict(values.get("vitconfig") or {})
    check_config(values, VALUES, where)
    check_config(vit, VIT, where)
    if (
        values.get("logit_laplace")
        or state["decoder.conv_out.weight"].shape[0] != (state["encoder.conv1.weight"].shape[1])
    ):
        raise ConfigError(
            f"{where}: expected a decoder to pixels; got one to the parameters of a logit-Laplace "
            "distribution. Import a checkpoint that was trained without logit_laplace."
        )
    tokens = state["encoder.positional_embedding"].shape[0]
    patch = round((state["encoder.conv1.weight"].shape[1] / 3) ** 0.5)
    shared = {
        "name": "vit2d",
        "size": round(tokens**0.5) * patch,
        "patch": patch,
        "value_range": list(values.get("clamp_range") or (-1.0, 1.0)),
    }
    decoder = {**shared, **_trunk(state, "decoder", {**vit, **(values.get("dvitconfig") or {})})}
    decoder["head_width"] = state["decoder.ffn.0.weight"].shape[0]
    return {
        "signal": {"kind": "image", "channels": 3},
        "dim": state["quant_embed.weight"].shape[0],
        "encoder": {**shared, **_trunk(state, "encoder", vit)},
        "decoder": decoder,
    }


def _trunk(state: Weights, half: str, vit: Mapping[str, Any]) -> dict[str, Any]:
    """Return width, layers, heads and the width inside the MLPs of one transformer."""
    where = f"from_published {half}"
    for key, known in FIXED.items():
        if vit.get(key) not in (None, known):
            raise ConfigError(
                f"{where}: expected {key} of {known!r}, that of the published files; got "
                f"{vit[key]!r}. No other is known here."
            )
    width = state[f"{half}.positional_embedding"].shape[1]
    hidden = state[f"{half}.transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    found = {
        "width": width,
        "layers": sizes(state, rf"{half}\.transformer\.resblocks\.(\d+)\."),
        "heads": int(vit.get("heads") or max(1, width // 64)),  # 64 per head, as in CLIP
    }
    agree(vit, {**found, "mlp_ratio": hidden / width}, where)
    return found if hidden == 4 * width else {**found, "hidden": hidden}


def backbone_rules() -> list[Rule]:
    """Return the rules of both transformers."""
    rules = [
        Rule(r"(encoder|decoder)\.positional_embedding", r"\1.positions"),
        Rule(r"(encoder|decoder)\.ln_pre\.(weight|bias)", r"\1.transformer.norm_in.\2"),
        Rule(r"(encoder|decoder)\.ln_post\.(weight|bias)", r"\1.transformer.norm_out.\2"),
        Rule(r"encoder\.conv1\.weight", "encoder.embed.weight"),
        Rule(r"decoder\.ffn\.0\.(weight|bias)", r"decoder.head.\1"),
        Rule(r"decoder\.conv_out\.(weight|bias)", r"decoder.to_pixels.\1"),
        Rule(r"quant_embed\.(weight|bias)", r"encoder.to_latent.\1"),
        Rule(r"post_quant_embed\.(weight|bias)", r"decoder.from_latent.\1"),
    ]
    for half in HALVES:
        rules += block_rules(rf"{half}\.transformer\.resblocks\.", f"{half}.transformer.blocks.")
    return rules


def configure(state: Weights, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the tokenizer that ``state`` belongs to.

    Raises:
        ConfigError: a constructor value is unknown or not supported.
    """
    config = backbone(state, values, "from_published('bsq_vit')")
    unit = values.get("post_q_l2_norm", True)  # else codes of +-1; signs are the same either way
    head = {"name": "bsq" if unit else "lfq", "bits": config["dim"], "bit_order": "big"}
    return {**config, "quantizer": head}


def rules(config: Mapping[str, Any]) -> Sequence[Rule]:
    """Return the rules from upstream keys to ours."""
    return [*backbone_rules(), drop(r"quantize\.(group_)?basis", "powers of two")]


def check(state: Weights) -> str | None:
    """Say what is there instead of a BSQ-ViT, if it is no such."""
    if "quantize.embedding.weight" in state:
        return "one with a learned codebook; its family is vit_vq"
    return None


FAMILY = Family(configure, rules, check=check)
