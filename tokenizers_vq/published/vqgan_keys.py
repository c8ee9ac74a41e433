"""Keys and sizes of the convolutional networks that VQGAN named and its descendants publish."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published.keys import Rule, State, sizes

BLOCK = r"((?:norm[12]|conv[12]|nin_shortcut)\.(?:weight|bias))"
ATTENTION = r"((?:norm|q|k|v|proj_out)\.(?:weight|bias))"
LEAF = r"(weight|bias)"
_ENDS = [
    Rule(rf"(encoder|decoder)\.(conv_in|norm_out|conv_out)\.{LEAF}", r"\1.\2.\3"),
    Rule(rf"quant_conv\.{LEAF}", r"encoder.quant_conv.\1"),
    Rule(rf"post_quant_conv\.{LEAF}", r"decoder.post_quant_conv.\1"),
]


def vqgan_rules() -> list[Rule]:
    """Return the rules of networks that keep VQGAN's own names (IBQ, Cosmos, VAR)."""
    level = r"(encoder\.down|decoder\.up)\.(\d+)"
    return [
        Rule(rf"{level}\.block\.(\d+)\.{BLOCK}", r"\1.\2.block.\3.\4"),
        Rule(rf"{level}\.attn\.(\d+)\.{ATTENTION}", r"\1.\2.attn.\3.\4"),
        Rule(rf"{level}\.(?:down|up)sample\.conv\.{LEAF}", r"\1.\2.resample.conv.\3"),
        Rule(rf"(encoder|decoder)\.mid\.block_1\.{BLOCK}", r"\1.mid.0.\2"),
        Rule(rf"(encoder|decoder)\.mid\.attn_1\.{ATTENTION}", r"\1.mid.1.\2"),
        Rule(rf"(encoder|decoder)\.mid\.block_2\.{BLOCK}", r"\1.mid.2.\2"),
        *_ENDS,
    ]


def llamagen_rules(levels: int) -> list[Rule]:
    """Return the rules of networks with LlamaGen's names (FQGAN), whose decoder runs upwards.

    Args:
        levels: number of levels; the decoder's level 0 is the coarsest there, the finest here.
    """

    def up(match: re.Match[str]) -> str:
        level = levels - 1 - int(match[1])
        kind = {"res": "block", "attn": "attn", "upsample": "resample"}[match[2]]
        return f"decoder.up.{level}.{kind}.{match[3]}"

    return [
        Rule(rf"encoder\.conv_blocks\.(\d+)\.res\.(\d+)\.{BLOCK}", r"encoder.down.\1.block.\2.\3"),
        Rule(
            rf"encoder\.conv_blocks\.(\d+)\.attn\.(\d+)\.{ATTENTION}", r"encoder.down.\1.attn.\2.\3"
        ),
        Rule(
            rf"encoder\.conv_blocks\.(\d+)\.downsample\.conv\.{LEAF}",
            r"encoder.down.\1.resample.conv.\2",
        ),
        Rule(rf"decoder\.conv_blocks\.(\d+)\.(res)\.(\d+\.{BLOCK})", up),
        Rule(rf"decoder\.conv_blocks\.(\d+)\.(attn)\.(\d+\.{ATTENTION})", up),
        Rule(rf"decoder\.conv_blocks\.(\d+)\.(upsample)\.(conv\.{LEAF})", up),
        Rule(rf"(encoder|decoder)\.mid\.([02])\.{BLOCK}", r"\1.mid.\2.\3"),
        Rule(rf"(encoder|decoder)\.mid\.1\.{ATTENTION}", r"\1.mid.1.\2"),
        *_ENDS,
    ]


def llamagen_levels(state: Mapping[str, Tensor]) -> int:
    """Return the number of levels of a network with LlamaGen's names."""
    return sizes(state, r"encoder\.conv_blocks\.(\d+)\.")


def network(state: State, dim: int, where: str, patch: int = 1) -> dict[str, Any]:
    """Return the ``signal``, ``dim``, ``encoder`` and ``decoder`` that tensors by our keys are of.

    Args:
        state: tensors by the keys of ``cnn2d``; also any others.
        dim: latent width D.
        where: the name the messages start with.
        patch: side of the Haar cells.

    Raises:
        KeyError: a tensor that says a size is missing.
        CheckpointError: the widths of the levels are no multiples of the first convolution's.
    """
    width, channels = state["encoder.conv_in.weight"].shape[:2]
    decoder_conv = state["decoder.conv_in.weight"]
    widths = _widths(state)
    if any(level % width for level in widths):
        raise CheckpointError(
            f"{where}: expected levels in multiples of {width} channels; got {widths}. "
            "Is it a checkpoint of another family?"
        )
    blocks = sizes(state, r"encoder\.down\.0\.block\.(\d+)\.")
    shared = {
        "name": "cnn2d",
        "family": "taming",
        "width": width,
        "channel_mult": [level // width for level in widths],
        "blocks": blocks,
        "z_channels": decoder_conv.shape[1],
        "patch": patch,
        "stride": patch * 2 ** sizes(state, r"encoder\.down\.(\d+)\.resample\."),
    }
    kernel = state["decoder.post_quant_conv.weight"].shape[-1]
    parts = {}
    for part, path in (("encoder", "encoder.down"), ("decoder", "decoder.up")):
        attended = [i for i in range(len(widths)) if f"{path}.{i}.attn.0.norm.weight" in state]
        ways: dict[str, Any] = {"attention": attended, "latent_kernel": kernel}
        if part == "decoder":
            own = sizes(state, r"decoder\.up\.0\.block\.(\d+)\.")
            ways["decoder_blocks"] = own - blocks
        parts[part] = {**shared, "conventions": ways}
    return {"signal": {"kind": "image", "channels": channels // patch**2}, "dim": dim, **parts}


def constructor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what our sizes are called in the constructors that VQGAN's descendants share."""
    encoder = config["encoder"]
    return {
        "ch": encoder["width"],
        "ch_mult": encoder["channel_mult"],
        "num_res_blocks": encoder["blocks"],
        "z_channels": encoder["z_channels"],
        "in_channels": config["signal"]["channels"],
    }


def _widths(state: State) -> list[int]:
    levels = sizes(state, r"encoder\.down\.(\d+)\.")
    return [state[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
