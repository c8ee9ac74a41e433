"""Checkpoints of FlexTok, with the autoencoder inside them under diffusers' names.

A file without ``vae.*`` is for latents of that autoencoder. Checkpoints of the transformers alone
are completed by putting the autoencoder's tensors under ``vae.vae.``.

Reference:
    Bachmann et al., 2025, https://arxiv.org/abs/2502.13967; https://github.com/apple/ml-flextok
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published.importing import Family, Weights
from tokenizers_vq.published.keys import Rule, drop, sizes
from tokenizers_vq.published.wrappers import check_config

KNOWN = (
    *("vae", "encoder", "decoder", "regularizer", "flow_matching_noise_module", "pipeline"),
    *("scaling_factor", "levels"),
)
WHERE = "from_published('flextok')"
LEVELS = (8, 8, 8, 5, 5, 5)
FIXED = {"head_dim": 64, "replace_with_single_token": False}  # wherever they stand; not in shapes
ENC, DEC = r"encoder\.module_dict\.", r"decoder\.module_dict\."
LATENT_RANGE = (-64.0, 64.0)  # of latents as signals: wide enough for any
_BLOCK = (
    (r"attn\.w([qkv])\.weight", r"\2.weight"),
    (r"attn\.proj\.weight", "proj.weight"),
    (r"mlp\.fc1\.weight", "up.weight"),
    (r"mlp\.fc2\.weight", "down.weight"),
    (r"mlp\.fc3\.weight", "value.weight"),
    (r"adaLN_modulation\.1\.(weight|bias)", r"modulation.\2"),
)


def configure(state: Weights, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return our config of a checkpoint.

    Of upstream's config tree only ``vae.scaling_factor`` and ``regularizer.levels`` are read; the
    rest is in the shapes. ``scaling_factor`` and ``levels`` may also stand at its top.

    Raises:
        ConfigError: a constructor value does not exist, or means another network than this one.
    """
    check_config(config, KNOWN, WHERE)
    for path, value in _leaves(config):
        name = path.rpartition(".")[2]
        if name in FIXED and value != FIXED[name]:
            raise ConfigError(
                f"{WHERE}: expected {name} of {FIXED[name]}; got {value!r} at {path}. "
                "No other is known here."
            )
    scale = config.get("scaling_factor") or (config.get("vae") or {}).get("scaling_factor") or 1.0
    levels = config.get("levels") or (config.get("regularizer") or {}).get("levels") or LEVELS
    embed = state["encoder.module_dict.enc_patch_emb.patch_proj.weight"]
    grid = state["encoder.module_dict.enc_posemb_module.posembs"].shape[-1]
    registers = state["encoder.module_dict.enc_register_module.registers"].shape[0]
    with_vae = any(key.startswith("vae.vae.") for key in state)
    channels = state["vae.vae.post_quant_conv.weight"].shape[0] if with_vae else embed.shape[1] // 4
    patch = round((embed.shape[1] / channels) ** 0.5)
    step = 2 ** (sizes(state, r"vae\.vae\.encoder\.down_blocks\.(\d+)") - 1) if with_vae else 1
    shared = {
        "name": "flextok",
        "registers": registers,
        "size": grid * patch * step,
        "patch": patch,
        "channels": channels,
        "scale": float(scale),
    }
    head = "decoder.module_dict.dec_to_patches.adaLN_modulation.1.weight"
    return {
        "signal": {"kind": "image", "channels": 3}
        if with_vae
        else {"kind": "image", "channels": channels, "value_range": LATENT_RANGE},
        "dim": len(levels),
        "encoder": {
            **shared,
            "depth": sizes(state, rf"{ENC}enc_transformer\.blocks\.(\d+)"),
            "width": embed.shape[0],
            "vae": _vae(state, 2 * channels) if with_vae else None,
        },
        "quantizer": {"name": "fsq", "levels": list(levels)},
        "decoder": {
            **shared,
            "depth": sizes(state, rf"{DEC}dec_transformer\.blocks\.(\d+)"),
            "width": state["decoder.module_dict.dec_from_latents.proj.weight"].shape[0],
            "modulated_head": head in state,
            "vae": _vae(state, channels) if with_vae else None,
        },
    }


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of every leaf of nested mappings."""
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _vae(state: Weights, dim: int) -> dict[str, Any]:
    """Return the config of the autoencoder's encoder or decoder with ``dim`` latent channels."""
    home = "vae.vae.encoder."
    width = state[f"{home}conv_in.weight"].shape[0]
    levels = sizes(state, r"vae\.vae\.encoder\.down_blocks\.(\d+)")
    ends = [state[f"{home}down_blocks.{i}.resnets.0.conv2.weight"].shape[0] for i in range(levels)]
    return {
        "name": "cnn2d",
        "family": "taming",
        "dim": dim,
        "width": width,
        "channel_mult": [end // width for end in ends],
        "blocks": sizes(state, r"vae\.vae\.encoder\.down_blocks\.0\.resnets\.(\d+)"),
        "conventions": {"attention": []},
    }


def rules(config: Mapping[str, Any]) -> Sequence[Rule]:
    """Return the rules from upstream keys to ours."""
    both = r"(weight|bias)"
    return [
        *_block_rules(f"{ENC}enc_transformer", "encoder"),
        *_block_rules(f"{DEC}dec_transformer", "decoder"),
        Rule(rf"{ENC}enc_patch_emb\.patch_proj\.{both}", r"encoder.embed.\1"),
        Rule(rf"{ENC}enc_posemb_module\.posembs", "encoder.position"),
        Rule(rf"{ENC}enc_register_module\.registers", "encoder.registers"),
        Rule(rf"{ENC}enc_to_latents\.proj\.{both}", r"encoder.head.proj.\1"),
        Rule(rf"{DEC}dec_from_latents\.proj\.{both}", r"decoder.embed_tokens.\1"),
        Rule(rf"{DEC}dec_registers_posemb_module\.posembs", "decoder.token_position"),
        Rule(rf"{DEC}dec_nested_dropout\.dropout_mask_token", "decoder.mask_token"),
        Rule(rf"{DEC}dec_latent_dropout\.nullcond", "decoder.null_token"),
        Rule(rf"{DEC}dec_noise_patch_emb\.patch_proj\.{both}", r"decoder.embed.\1"),
        Rule(rf"{DEC}dec_patches_posemb_module\.posembs", "decoder.position"),
        Rule(rf"{DEC}dec_time_embedder\.mlp\.(\d)\.{both}", r"decoder.time.mlp.\1.\2"),
        Rule(rf"{DEC}dec_to_patches\.adaLN_modulation\.1\.{both}", r"decoder.head.modulation.\1"),
        Rule(rf"{DEC}dec_to_patches\.proj\.{both}", r"decoder.head.proj.\1"),
        drop(rf"{DEC}\w*repa\w*\..*", "predicts features of a teacher in training"),
        drop(r"vae\.logvar", "weighs a loss of the autoencoder"),
        *_vae_rules(config),
    ]


def _block_rules(source: str, side: str) -> list[Rule]:
    wrapped = r"(?:_checkpoint_wrapped_module\.)?"
    return [
        Rule(rf"{source}\.blocks\.(\d+)\.{wrapped}{theirs}", rf"{side}.blocks.\1.{ours}")
        for theirs, ours in _BLOCK
    ]


def _vae_rules(config: Mapping[str, Any]) -> list[Rule]:
    """Return the rules of the autoencoder, whose decoder is listed in order of execution."""
    if not config["encoder"].get("vae"):
        return []
    last = len(config["encoder"]["vae"]["channel_mult"]) - 1

    def up(match: re.Match[str]) -> str:
        return f"decoder.vae.up.{last - int(match[1])}.{_inner(match[2])}"

    both = r"(weight|bias)"
    attention = {"query": "q", "key": "k", "value": "v", "proj_attn": "proj_out"}
    attention |= {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    found = [
        Rule(r"vae\.vae\.decoder\.up_blocks\.(\d+)\.(.*)", up),
        Rule(rf"vae\.vae\.quant_conv\.{both}", r"encoder.vae.quant_conv.\1"),
        Rule(rf"vae\.vae\.post_quant_conv\.{both}", r"decoder.vae.post_quant_conv.\1"),
        Rule(
            r"vae\.vae\.encoder\.down_blocks\.(\d+)\.(.*)",
            lambda match: f"encoder.vae.down.{match[1]}.{_inner(match[2])}",
        ),
    ]
    mid = r"vae\.vae\.(encoder|decoder)\.mid_block\."
    for theirs, ours in attention.items():
        name = theirs.replace(".", r"\.")
        target = rf"\1.vae.mid.1.{ours}.\2"
        found.append(Rule(rf"{mid}attentions\.0\.{name}\.{both}", target, _pointwise))
    return [
        *found,
        Rule(rf"{mid}attentions\.0\.group_norm\.{both}", r"\1.vae.mid.1.norm.\2"),
        Rule(
            rf"{mid}resnets\.(\d)\.(.*)",
            lambda match: f"{match[1]}.vae.mid.{2 * int(match[2])}.{_block_part(match[3])}",
        ),
        Rule(rf"vae\.vae\.(encoder|decoder)\.conv_norm_out\.{both}", r"\1.vae.norm_out.\2"),
        Rule(rf"vae\.vae\.(encoder|decoder)\.(conv_in|conv_out)\.{both}", r"\1.vae.\2.\3"),
    ]


def _inner(key: str) -> str:
    """Return our name of a part of a level: of a block, or of the resampling behind them."""
    key = re.sub(r"^resnets\.", "block.", key)
    key = re.sub(r"^(?:down|up)samplers\.0\.", "resample.", key)
    return _block_part(key)


def _block_part(key: str) -> str:
    return key.replace("conv_shortcut", "nin_shortcut")


def _pointwise(weight: Tensor) -> Tensor:
    """Return a linear map as a 1x1 convolution."""
    return weight[:, :, None, None] if weight.ndim == 2 else weight


def check(state: Weights) -> str | None:
    """Say why tensors are not of this family."""
    if "encoder.module_dict.enc_register_module.registers" not in state:
        return "one without registers in its encoder"
    return None


FAMILY = Family(configure, rules, check=check)
