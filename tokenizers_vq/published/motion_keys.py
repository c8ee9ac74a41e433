"""Keys and sizes of the convolutional network that T2M-GPT and MoMask share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.keys import Rule, State, sizes

RATES = {263: 20.0, 251: 12.5}  # frames per second of HumanML3D and KIT-ML, by features
UNIT = r"model\.(\d+)\.conv([12])\.(weight|bias)"


def codes(table: Tensor) -> State:
    """Return a codebook and the sums that moving averages go on from."""
    return {"codebook": table, "cluster_sum": table}


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config of a tokenizer without its quantizer; keys begin with ``encoder``."""
    width, channels, _ = state["encoder.model.0.weight"].shape
    levels = sizes(state, r"encoder\.model\.(\d+)\.0\.weight")
    part = {
        "name": "motion",
        "width": width,
        "levels": levels,
        "depth": sizes(state, r"encoder\.model\.2\.1\.model\.(\d+)\.conv1\.weight"),
    }
    return {
        "signal": {
            "kind": "motion",
            "channels": channels,
            "value_range": [-100.0, 100.0],
            "frame_rate": RATES.get(channels),
        },
        "dim": state[f"encoder.model.{2 + levels}.weight"].shape[0],
        "encoder": part,
        "decoder": part,
    }


def network_rules(config: Mapping[str, Any]) -> list[Rule]:
    """Return the rules of encoder and decoder of a tokenizer's config."""
    levels, depth = config["encoder"]["levels"], config["encoder"]["depth"]
    end = (r"\.(weight|bias)", r".\1")

    def down(match: re.Match[str]) -> str:
        return f"encoder.layers.{2 + (int(match[1]) - 2) * (1 + depth)}.{match[2]}"

    def down_unit(match: re.Match[str]) -> str:
        at = 3 + (int(match[1]) - 2) * (1 + depth) + int(match[2])
        return f"encoder.layers.{at}.conv{match[3]}.{match[4]}"

    def up_unit(match: re.Match[str]) -> str:
        at = 2 + (int(match[1]) - 2) * (2 + depth) + int(match[2])
        return f"decoder.layers.{at}.conv{match[3]}.{match[4]}"

    def up(match: re.Match[str]) -> str:
        return f"decoder.layers.{3 + depth + (int(match[1]) - 2) * (2 + depth)}.{match[2]}"

    return [
        Rule(r"encoder\.model\.0" + end[0], "encoder.layers.0" + end[1]),
        Rule(r"encoder\.model\.(\d+)\.0\.(weight|bias)", down),
        Rule(r"encoder\.model\.(\d+)\.1\." + UNIT, down_unit),
        Rule(
            rf"encoder\.model\.{2 + levels}" + end[0],
            f"encoder.layers.{2 + levels * (1 + depth)}" + end[1],
        ),
        Rule(r"decoder\.model\.0" + end[0], "decoder.layers.0" + end[1]),
        Rule(r"decoder\.model\.(\d+)\.0\." + UNIT, up_unit),
        Rule(r"decoder\.model\.(\d+)\.2\.(weight|bias)", up),
        Rule(
            rf"decoder\.model\.{2 + levels}" + end[0],
            f"decoder.layers.{2 + levels * (2 + depth)}" + end[1],
        ),
        Rule(rf"decoder\.model\.{4 + levels}" + end[0], "decoder.last" + end[1]),
    ]


STATISTICS = r"(encoder|decoder)\.standardize\..*"
"""Keys that no file has: mean and deviation of the features are in files beside it."""
