"""The sizes of a convolutional network, read from the tensors of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tokenizers_vq.published.keys import sizes


@dataclass(frozen=True)
class Trunk:
    """Sizes of an encoder and its decoder.

    Attributes:
        width: channels behind the first convolution.
        channel_mult: width of each level, the finest first, in units of ``width``.
        blocks: residual blocks per level of the encoder.
        decoder_blocks: the same of the decoder.
        dim: channels of the encoder's last convolution.
    """

    width: int
    channel_mult: list[int]
    blocks: int
    decoder_blocks: int
    dim: int


def read_trunk(state: Mapping[str, Tensor], block: str = "block") -> Trunk:
    """Return the sizes of the network whose levels are ``encoder.down.#.<block>.#``.

    Raises:
        KeyError: a tensor that every such network has is missing.
    """
    levels = sizes(state, r"encoder\.down\.(\d+)\.")
    if not levels:
        raise KeyError(f"encoder.down.0.{block}.0.conv1.weight")
    width = int(state["encoder.conv_in.weight"].shape[0])
    convs = [state[f"encoder.down.{i}.{block}.0.conv1.weight"] for i in range(levels)]
    return Trunk(
        width,
        [int(conv.shape[0]) // width for conv in convs],
        sizes(state, rf"encoder\.down\.0\.{block}\.(\d+)\."),
        sizes(state, rf"decoder\.up\.0\.{block}\.(\d+)\."),
        int(state["encoder.conv_out.weight"].shape[0]),
    )


def descend(config: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """Return the constructor values of a whole training file, or ``config`` if it is no such.

    Args:
        config: constructor values, or mappings around them.
        path: the names of those mappings, outermost first; missing ones are skipped.
    """
    for key in path:
        if isinstance(config.get(key), Mapping):
            config = config[key]
    return dict(config)
