"""What the published files of the MAGVIT2 line of CNNs share: Open-MAGVIT2, WeTok and SimVQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published.keys import Rule
from tokenizers_vq.published.trunk import Trunk, descend, read_trunk
from tokenizers_vq.published.wrappers import agree, check_config

NETWORK = (
    "double_z", "z_channels", "resolution", "in_channels", "out_ch", "ch", "ch_mult",
    "num_res_blocks", "attn_resolutions", "dropout",
)  # fmt: skip
MODEL = (  # constructor values of their training modules; only the first few make a network
    "ddconfig", "n_embed", "embed_dim", "num_codebooks", "token_factorization", "factorized_bits",
    "use_GFQ", "gan_decoder", "lossconfig", "sample_minimization_weight",
    "batch_maximization_weight", "ckpt_path", "ignore_keys", "image_key", "colorize_nlabels",
    "monitor", "learning_rate", "resume_lr", "warmup_epochs", "scheduler_type",
    "min_learning_rate", "use_ema", "use_shared_epoch", "stage", "stage2", "lr_drop_epoch",
    "lr_drop_rate", "lr_drop_iter", "wp", "wp0", "wpe", "wp_iter", "max_iter", "sche_type",
)  # fmt: skip
AROUND = ("model", "init_args", "params")  # of the training files

RULES = (
    Rule(r"(encoder\.down|decoder\.up)\.(\d+\.block\.\d+\..+)", r"\1.\2"),
    Rule(r"encoder\.down\.(\d+)\.downsample\.(\w+)", r"encoder.down.\1.resample.conv.\2"),
    Rule(r"decoder\.up\.(\d+)\.upsample\.conv1\.(\w+)", r"decoder.up.\1.resample.conv.\2"),
    Rule(r"(encoder|decoder)\.mid_block\.(\d+\..+)", r"\1.mid.\2"),
    Rule(r"((?:encoder|decoder)\.(?:conv_in|norm_out|conv_out)\.\w+)", r"\1"),
    Rule(r"(decoder\.adaptive\.\d+\.(?:gamma|beta)\.\w+)", r"\1"),
)


def read_values(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    known: Sequence[str],
    where: str,
) -> tuple[Trunk, dict[str, Any]]:
    """Return the sizes that the tensors say, and the constructor values that were given.

    Args:
        state: upstream tensors.
        config: constructor values, or the training file around them.
        known: names of the constructor values, beyond those of the network.
        where: the name the messages start with.

    Raises:
        ConfigError: there is no such value.
        CheckpointError: a value says other than the tensors.
    """
    given = descend(config, *AROUND)
    check_config(given, known, where)
    network = descend(given, "ddconfig") if "ddconfig" in given else {}
    check_config(network, NETWORK, where)
    trunk = read_trunk(state)
    found = {
        "ch": trunk.width,
        "ch_mult": trunk.channel_mult,
        "num_res_blocks": trunk.blocks,
        "z_channels": trunk.dim,
        "in_channels": int(state["encoder.conv_in.weight"].shape[1]),
        "out_ch": int(state["decoder.conv_out.weight"].shape[0]),
    }
    agree(network, found, where)
    agree(given, {"embed_dim": trunk.dim, "e_dim": trunk.dim}, where)
    return trunk, given


def tokenizer_config(
    state: Mapping[str, Tensor], trunk: Trunk, quantizer: Mapping[str, Any], adaptive: bool = True
) -> dict[str, Any]:
    """Return our config of a network of these sizes.

    Args:
        state: upstream tensors.
        trunk: their sizes.
        quantizer: config of the head.
        adaptive: whether the decoder's levels are normalised with statistics of the codes.
    """
    network: dict[str, Any] = {
        "name": "cnn2d",
        "family": "magvit2",
        "width": trunk.width,
        "channel_mult": trunk.channel_mult,
        "blocks": trunk.blocks,
    }
    if not adaptive:
        network["conventions"] = {"adaptive": False}
    decoder = dict(network)
    noise = int(state["decoder.conv_in.weight"].shape[1]) - trunk.dim
    if noise:
        decoder["noise_channels"] = noise
    return {
        "signal": {"kind": "image", "channels": int(state["encoder.conv_in.weight"].shape[1])},
        "dim": trunk.dim,
        "encoder": network,
        "quantizer": dict(quantizer),
        "decoder": decoder,
    }


def sign_head(bits: Sequence[int]) -> dict[str, Any]:
    """Return the config of a lookup-free head with one index per entry of ``bits``.

    The weights are those of the recipes: entropies 0.1, commitment 0.25.
    """
    weights = {"entropy_weight": 0.1, "commitment_weight": 0.25}
    heads = [{"name": "lfq", "dim": n, "bits": n, **weights} for n in bits]
    return heads[0] if len(heads) == 1 else {"name": "grouped", "groups": heads}


def index_bits(given: Mapping[str, Any], groups: int, dim: int, where: str) -> list[int]:
    """Return the bits of each index of a position.

    Args:
        given: constructor values; with ``token_factorization`` the bits are ``factorized_bits``.
        groups: indices per position otherwise.
        dim: bits per position.
        where: the name the messages start with.

    Raises:
        ConfigError: they are not ``dim`` in all.
        CheckpointError: ``n_embed`` is another number of codes.
    """
    bits = [dim // groups] * groups
    agree(given, {"n_embed": 2 ** bits[0]}, where)
    if given.get("token_factorization"):
        bits = [int(n) for n in given.get("factorized_bits", (9, 9))]
    if sum(bits) != dim:
        raise ConfigError(
            f"{where}: expected indices of {dim} bits in all; got {bits}. "
            "Correct num_codebooks or factorized_bits."
        )
    return bits
