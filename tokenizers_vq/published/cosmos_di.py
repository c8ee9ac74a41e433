"""NVIDIA's Cosmos DI8x8 and DI16x16, both generations: Haar cells of 4 or 2 pixels, FSQ.

The files are TorchScript. ``encoder.jit`` and ``decoder.jit`` hold one half each: import the two
state dicts merged into one, or that of ``autoencoder.jit``.

Reference:
    NVIDIA, Cosmos World Foundation Model Platform for Physical AI, 2025,
    https://arxiv.org/abs/2501.03575, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import drop, rename
from tokenizers_vq.published.vqgan_keys import constructor, network, vqgan_rules
from tokenizers_vq.published.wrappers import agree, check_config

WHERE = "from_published('cosmos_di')"
LEVELS = [8, 8, 8, 5, 5, 5]  # of every published file
COLOURS = 3
VALUES = (
    "attn_resolutions", "channels", "channels_mult", "dropout", "in_channels",
    "spatial_compression", "num_res_blocks", "out_channels", "resolution", "patch_size",
    "patch_method", "z_channels", "z_factor", "quantizer", "embedding_dim", "levels",
    "num_quantizers", "name", "encoder", "decoder", "persistent_quantizer", "num_groups",
    "temporal_compression", "legacy_mode", "dtype", "formulation", "ignore_first_decode",
)  # fmt: skip
RULES = (
    drop(r"(?:encoder\.patcher\w*|decoder\.unpatcher\w*)\..*", "Haar filters, the same in all"),
    drop(r"(?:inv_quant\.)?quantizer\..*", "levels and codes that FSQ computes"),
    *vqgan_rules(),
)


def configure(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer that the tensors fit; see ``Family.configure``.

    Raises:
        ConfigError: a constructor value that Cosmos DI does not have, or another quantizer or
            way of cutting patches.
        CheckpointError: a constructor value that the tensors contradict, or colours that are not 3.
    """
    check_config(given, VALUES, WHERE)
    for key, known in (("quantizer", "FSQ"), ("patch_method", "haar")):
        if given.get(key, known) != known:
            raise ConfigError(
                f"{WHERE}: expected {key} {known!r}, that of the published files; got "
                f"{given[key]!r}. No other is known here."
            )
    ours = rename(state, RULES, WHERE)
    cells = ours["encoder.conv_in.weight"].shape[1] // COLOURS
    patch = math.isqrt(cells)
    if patch.bit_count() != 1 or patch**2 * COLOURS != ours["encoder.conv_in.weight"].shape[1]:
        raise CheckpointError(
            f"{WHERE}: expected Haar cells of three colours in the first convolution; got "
            f"{ours['encoder.conv_in.weight'].shape[1]} channels. "
            "Is it a checkpoint of another family?"
        )
    levels = list(given.get("levels", LEVELS))
    width = ours["encoder.quant_conv.weight"].shape[0]
    built = network(ours, width, WHERE, patch)
    built["quantizer"] = {"name": "fsq", "levels": levels}
    found = constructor(built)
    found |= {"channels": found["ch"], "channels_mult": found["ch_mult"], "embedding_dim": width}
    found |= {"patch_size": patch, "spatial_compression": built["encoder"]["stride"]}
    agree(given, found, WHERE)
    return built


FAMILY = Family(configure, lambda _: RULES)
