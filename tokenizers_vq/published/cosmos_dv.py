"""NVIDIA's Cosmos DV4x8x8, DV8x8x8 and DV8x16x16: causal video, Haar cells of 4, FSQ.

All three have the same tensors: which resolutions change is not in them, so ``config`` has to give
``temporal_compression`` and ``spatial_compression``. Maps of levels that keep their resolution are
in the files, and unused. The files are TorchScript; see ``cosmos_di``.

Reference:
    NVIDIA, Cosmos World Foundation Model Platform for Physical AI, 2025,
    https://arxiv.org/abs/2501.03575, section 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tokenizers_vq.backbones.cosmos_video import down_steps, up_steps
from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.published.cosmos_di import LEVELS, VALUES
from tokenizers_vq.published.importing import Family, require
from tokenizers_vq.published.keys import Rule, drop
from tokenizers_vq.published.wrappers import agree, check_config

WHERE = "from_published('cosmos_dv')"
COLOURS = 3
PAIR = r"(\d)\.conv3d\.(\w+)"
SIDES = (("down", "downsample", "space", "time"), ("up", "upsample", "time", "space"))


def configure(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer that the tensors fit; see ``Family.configure``.

    Raises:
        ConfigError: the compression is missing, or a constructor value that Cosmos DV does not
            have, or another quantizer or way of cutting patches.
        CheckpointError: a constructor value that the tensors contradict.
    """
    check_config(given, VALUES, WHERE)
    for key, known in (("quantizer", "FSQ"), ("patch_method", "haar"), ("legacy_mode", False)):
        if given.get(key, known) != known:
            raise ConfigError(
                f"{WHERE}: expected {key} {known!r}, that of the published files; got "
                f"{given[key]!r}. No other is known here."
            )
    stride = [
        int(require(given, f"{which}_compression", "cosmos_dv"))
        for which in ("temporal", "spatial")
    ]
    first = state["encoder.conv_in.0.conv3d.weight"]
    width, cells = int(first.shape[0]), int(first.shape[1]) // COLOURS
    patch = round(cells ** (1 / 3))
    if patch**3 * COLOURS != first.shape[1]:
        raise CheckpointError(
            f"{WHERE}: expected Haar cells of three colours in the first convolution; got "
            f"{first.shape[1]} channels. Is it a checkpoint of another family?"
        )
    levels, blocks = (_count(state, pattern) for pattern in (
        r"encoder\.down\.(\d+)\..*", r"encoder\.down\.0\.block\.(\d+)\..*"
    ))  # fmt: skip
    mult = [
        int(state[f"encoder.down.{i}.block.0.conv1.0.conv3d.weight"].shape[0]) // width
        for i in range(levels)
    ]
    dim, z_channels = (int(n) for n in state["quant_conv.conv3d.weight"].shape[:2])
    found = {
        "channels": width, "channels_mult": mult, "num_res_blocks": blocks, "patch_size": patch,
        "z_channels": z_channels, "embedding_dim": dim,
    }  # fmt: skip
    agree(given, found, WHERE)
    network = {
        "name": "cosmos_video", "width": width, "channel_mult": mult, "blocks": blocks,
        "z_channels": z_channels, "patch": patch, "stride": stride,
    }  # fmt: skip
    return {
        "signal": {"kind": "video", "channels": COLOURS},
        "dim": dim,
        "encoder": network,
        "quantizer": {"name": "fsq", "levels": list(given.get("levels", LEVELS))},
        "decoder": network,
    }


def rules(built: Mapping[str, Any]) -> Sequence[Rule]:
    """Return the rules for a network of that stride: unused maps are left out."""
    network = built["encoder"]
    levels = len(network["channel_mult"])
    sizes = (network["patch"], *network["stride"], levels)
    steps = (down_steps(*sizes), up_steps(*sizes)[::-1])  # by the number of the level in a file
    found = [
        drop(r"(?:encoder\.patcher\w*|decoder\.unpatcher\w*)\..*", "Haar filters, the same in all"),
        drop(r"(?:inv_quant\.)?quantizer\..*", "levels and codes that FSQ computes"),
        Rule(r"quant_conv\.conv3d\.(\w+)", r"encoder.quant_conv.\1"),
        Rule(r"post_quant_conv\.conv3d\.(\w+)", r"decoder.post_quant_conv.\1"),
        Rule(rf"(encoder|decoder)\.(conv_in|conv_out)\.{PAIR}", r"\1.\2.\3.\4"),
        Rule(r"(encoder|decoder)\.norm_out\.norm\.(\w+)", r"\1.norm_out.\2"),
    ]
    for upstream, ours in (
        ("block_1", "0"),
        ("attn_1.0", "1"),
        ("attn_1.1", "2"),
        ("block_2", "3"),
    ):
        inside = rf"(encoder|decoder)\.mid\.{re.escape(upstream)}"
        found += _block(inside, rf"\1.mid.{ours}", 1)
    for (side, resample, first, second), done in zip(SIDES, steps, strict=True):
        half = "encoder" if side == "down" else "decoder"
        found += _block(rf"{half}\.{side}\.(\d+)\.block\.(\d+)", rf"{half}.levels.\1.blocks.\2", 2)
        for i, step in enumerate(done):
            level = i + (side == "up")  # that of the finest has none
            used = dict(zip(("space", "time"), step, strict=True))
            for number, name in enumerate((first, second, "mix"), 1):
                pattern = rf"{half}\.{side}\.{level}\.{resample}\.conv{number}\.conv3d\.(\w+)"
                if used.get(name, any(step)):
                    found.append(Rule(pattern, rf"{half}.levels.{level}.resample.{name}.\1"))
                else:
                    found.append(drop(pattern, "a resolution that does not change"))
    return found


def _block(pattern: str, target: str, groups: int) -> list[Rule]:
    """Return the rules of a residual block or an attention under a key with so many groups."""
    a, b, c = (rf"\{groups + k}" for k in (1, 2, 3))
    return [
        Rule(rf"{pattern}\.(norm\d)\.norm\.(\w+)", f"{target}.{a}.{b}"),
        Rule(rf"{pattern}\.(conv\d)\.{PAIR}", f"{target}.{a}.{b}.{c}"),
        Rule(rf"{pattern}\.nin_shortcut\.conv3d\.(\w+)", f"{target}.shortcut.{a}"),
        Rule(rf"{pattern}\.norm\.norm\.(\w+)", f"{target}.norm.{a}"),
        Rule(rf"{pattern}\.(q|k|v|proj_out)\.conv3d\.(\w+)", f"{target}.{a}.{b}"),
    ]


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    matches = (re.fullmatch(pattern, key) for key in state)
    return 1 + max((int(match.group(1)) for match in matches if match), default=0)


FAMILY = Family(configure, rules)
