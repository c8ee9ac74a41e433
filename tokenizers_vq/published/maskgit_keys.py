"""What the published files of the MaskGIT line of CNNs share: MaskGIT-VQGAN, VQGAN+ and MaskBit.

Two spellings are about: ``block``/``mid.#`` and ``res_blocks``/``mid.res_blocks.#``; and two orders
of the decoder's levels: the finest first, or as they are run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.keys import Rule
from tokenizers_vq.published.trunk import Trunk, descend, read_trunk
from tokenizers_vq.published.wrappers import agree, check_config

KNOWN = (
    "model_class", "quantizer_type", "codebook_size", "token_size", "commitment_cost",
    "entropy_loss_weight", "entropy_loss_temperature", "entropy_gamma", "num_channels",
    "hidden_channels", "channel_mult", "num_resolutions", "num_res_blocks",
    "num_res_blocks_decoder", "sample_with_conv", "use_l2_normalisation", "z_channels",
    "num_embeddings", "resolution", "dropout", "legacy", "finetune_decoder",
)  # fmt: skip
AROUND = ("model", "vq_model")  # of the training files
CODEBOOK = Rule(r"quantize\.embedding\.weight", "quantizer.codebook")


def read_values(
    state: Mapping[str, Tensor], config: Mapping[str, Any], where: str
) -> tuple[Trunk, dict[str, Any]]:
    """Return the sizes that the tensors say, and the constructor values that were given.

    Args:
        state: upstream tensors.
        config: constructor values, or the training file around them.
        where: the name the messages start with.

    Raises:
        ConfigError: there is no such value.
        CheckpointError: a value says other than the tensors.
    """
    given = descend(config, *AROUND)
    check_config(given, KNOWN, where)
    spelling = "block" if "encoder.down.0.block.0.conv1.weight" in state else "res_blocks"
    trunk = read_trunk(state, spelling)
    found = {
        "hidden_channels": trunk.width,
        "channel_mult": trunk.channel_mult,
        "num_resolutions": len(trunk.channel_mult),
        "num_res_blocks": trunk.blocks,
        "num_res_blocks_decoder": trunk.decoder_blocks,
        "token_size": trunk.dim,
        "z_channels": trunk.dim,
        "num_channels": int(state["encoder.conv_in.weight"].shape[1]),
        "sample_with_conv": _strided(state),
    }
    agree(given, found, where)
    return trunk, given


def tokenizer_config(
    state: Mapping[str, Tensor], trunk: Trunk, quantizer: Mapping[str, Any]
) -> dict[str, Any]:
    """Return our config of a network of these sizes, and ``finest_first`` for ``rules``.

    Args:
        state: upstream tensors.
        trunk: their sizes.
        quantizer: config of the head.
    """
    network: dict[str, Any] = {
        "name": "cnn2d",
        "family": "maskgit",
        "width": trunk.width,
        "channel_mult": trunk.channel_mult,
        "blocks": trunk.blocks,
    }
    if not _strided(state):
        network["conventions"] = {"down": "average"}
    return {
        "signal": {"kind": "image", "channels": int(state["encoder.conv_in.weight"].shape[1])},
        "dim": trunk.dim,
        "encoder": network,
        "quantizer": dict(quantizer),
        "decoder": {**network, "blocks": trunk.decoder_blocks},
        # the level that runs last is the only one that enlarges nothing
        "finest_first": "decoder.up.0.upsample_conv.weight" not in state,
    }


def table_head(
    state: Mapping[str, Tensor], given: Mapping[str, Any], where: str, *names: str
) -> dict[str, Any]:
    """Return the config of the head with the codebook of a file.

    Args:
        state: upstream tensors.
        given: constructor values.
        where: the name the messages start with.
        names: constructor values that say the number of codes.

    Raises:
        CheckpointError: they say another number.
    """
    codes = int(state["quantize.embedding.weight"].shape[0])
    agree(given, dict.fromkeys(names, codes), where)
    return {
        "name": "vq",
        "codebook_size": codes,
        "metric": "cosine" if given.get("use_l2_normalisation") else "euclidean",
        "commitment_weight": float(given.get("commitment_cost", 0.25)),
    }


def rules(config: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Return the rules for a network of our ``config``, from both spellings."""
    levels = len(config["decoder"]["channel_mult"])
    up = _level(levels, bool(config["finest_first"]))
    return (
        Rule(r"encoder\.down\.(\d+)\.(?:res_)?blocks?\.(\d+\..+)", r"encoder.down.\1.block.\2"),
        Rule(r"encoder\.down\.(\d+)\.down_conv\.(\w+)", r"encoder.down.\1.resample.conv.\2"),
        Rule(
            r"decoder\.up\.(\d+)\.(?:res_)?blocks?\.(\d+\..+)",
            lambda found: f"decoder.up.{up(found[1])}.block.{found[2]}",
        ),
        Rule(
            r"decoder\.up\.(\d+)\.upsample_conv\.(\w+)",
            lambda found: f"decoder.up.{up(found[1])}.resample.conv.{found[2]}",
        ),
        Rule(r"(encoder|decoder)\.mid\.(?:res_blocks\.)?(\d+\..+)", r"\1.mid.\2"),
        Rule(r"((?:encoder|decoder)\.(?:conv_in|norm_out|conv_out)\.\w+)", r"\1"),
    )


def _strided(state: Mapping[str, Tensor]) -> bool:
    """Whether convolutions halve the levels, not pooling."""
    return "encoder.down.0.down_conv.weight" in state


def _level(levels: int, finest_first: bool) -> Callable[[str], int]:
    """Return the map from their levels of the decoder to ours, the finest first."""
    return lambda level: int(level) if finest_first else levels - 1 - int(level)
