"""Open-MAGVIT2's video tokenizer: a causal 3D CNN whose norms see the whole clip, LFQ of 18 bits.

Reference:
    Luo et al., Open-MAGVIT2, 2024, https://arxiv.org/abs/2409.04410.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule
from tokenizers_vq.published.magvit2_keys import AROUND, MODEL, NETWORK, index_bits, sign_head
from tokenizers_vq.published.trunk import descend, read_trunk
from tokenizers_vq.published.wrappers import agree, check_config

WHERE = "from_published('open_magvit2_video')"
CONV = r"conv_1\.(\w+)"
RULES = (
    Rule(rf"(encoder|decoder)\.(conv_in|conv_out)\.{CONV}", r"\1.\2.\3"),
    Rule(r"((?:encoder|decoder)\.norm_out\.\w+)", r"\1"),
    Rule(rf"encoder\.down\.(\d+)\.downsample\.{CONV}", r"encoder.down.\1.resample.\2"),
    Rule(rf"decoder\.up\.(\d+)\.upsample\.conv1\.{CONV}", r"decoder.up.\1.resample.conv.\2"),
    Rule(r"(decoder\.adaptive\.\d+\.(?:gamma|beta)\.\w+)", r"\1"),
    Rule(r"(encoder|decoder)\.mid_block\.(\d+)\.(norm\d\.\w+)", r"\1.mid.\2.\3"),
    Rule(rf"(encoder|decoder)\.mid_block\.(\d+)\.(conv\d)\.{CONV}", r"\1.mid.\2.\3.\4"),
    Rule(r"(encoder\.down|decoder\.up)\.(\d+)\.block\.(\d+)\.(norm\d\.\w+)", r"\1.\2.blocks.\3.\4"),
    Rule(
        rf"(encoder\.down|decoder\.up)\.(\d+)\.block\.(\d+)\.(conv\d)\.{CONV}",
        r"\1.\2.blocks.\3.\4.\5",
    ),
    Rule(
        rf"(encoder\.down|decoder\.up)\.(\d+)\.block\.(\d+)\.nin_shortcut\.{CONV}",
        r"\1.\2.blocks.\3.shortcut.\4",
    ),
)


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    given = descend(config, *AROUND)
    check_config(given, (*MODEL, "image_pretrain_path"), WHERE)
    network = descend(given, "ddconfig") if "ddconfig" in given else {}
    check_config(network, NETWORK, WHERE)
    flat = {key.replace(".conv_1.", "."): value for key, value in state.items()}
    trunk = read_trunk(flat)
    found = {
        "ch": trunk.width,
        "ch_mult": trunk.channel_mult,
        "num_res_blocks": trunk.blocks,
        "z_channels": trunk.dim,
    }
    agree(network, found, WHERE)
    agree(given, {"embed_dim": trunk.dim}, WHERE)
    ours = {
        "name": "magvit2_video",
        "width": trunk.width,
        "channel_mult": trunk.channel_mult,
        "blocks": trunk.blocks,
        # their rule: time is kept behind levels of the narrowest width
        "pools": [[1 if mult == 1 else 2, 2, 2] for mult in trunk.channel_mult[:-1]],
        "norm": "clip",
    }
    return {
        "signal": {"kind": "video", "channels": int(flat["encoder.conv_in.weight"].shape[1])},
        "dim": trunk.dim,
        "encoder": ours,
        "quantizer": sign_head(index_bits(given, 1, trunk.dim, WHERE)),
        "decoder": ours,
    }


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    first = state.get("encoder.conv_in.conv_1.weight")
    if first is None or first.ndim != 5:
        return "one without 3D convolutions named conv_1 (family open_magvit2 is of pictures)"
    return None


FAMILY = Family(configure, rules=lambda _: RULES, check=check)
