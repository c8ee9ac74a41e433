"""Keys of published transformers of Whisper's shape: as OpenAI named them, and as transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published.keys import Rule

OPENAI = {
    "attn.query": "attn.q",
    "attn.key": "attn.k",
    "attn.value": "attn.v",
    "attn.out": "attn.proj",
    "attn.fsmn_block": "attn.memory",
    "attn_ln": "norm1",
    "mlp_ln": "norm2",
    "mlp.0": "mlp.up",
    "mlp.2": "mlp.down",
}
TRANSFORMERS = {
    "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.out_proj": "attn.proj",
    "self_attn_layer_norm": "norm1",
    "final_layer_norm": "norm2",
    "fc1": "mlp.up",
    "fc2": "mlp.down",
}
HEAD = 64  # channels of a head, in every published network of this shape


def layer_rules(names: Mapping[str, str], upstream: str, ours: str) -> list[Rule]:
    """Return the rules of layers.

    Args:
        names: ``OPENAI`` or ``TRANSFORMERS``.
        upstream: regular expression of what is in front of the number of a layer.
        ours: what is in front of it here, ending in ``layers.``.
    """
    return [
        Rule(
            rf"{upstream}(\d+)\.{theirs.replace('.', '[.]')}\.(weight|bias)",
            rf"{ours}\1.{name}.\2",
        )
        for theirs, name in names.items()
    ]


def heads_of(width: int, given: Any, where: str) -> int:
    """Return the attention heads: as told, or as many as are 64 channels wide.

    Raises:
        CheckpointError: they do not divide the width.
    """
    heads = max(1, width // HEAD) if given is None else int(given)
    if width % heads:
        raise CheckpointError(
            f"{where}: expected heads that divide the width {width}; got {heads}. Pass the "
            "constructor values of this checkpoint."
        )
    return heads


def widths_of(state: Mapping[str, Tensor], encoder: str, first_layer: str) -> dict[str, int]:
    """Return ``mels``, ``width`` and ``hidden`` of an encoder.

    Args:
        state: upstream tensors.
        encoder: prefix of its convolutions.
        first_layer: key of the first map of the first layer's MLP.

    Raises:
        KeyError: a tensor that every such network has is missing.
    """
    width, mels, _ = state[f"{encoder}conv1.weight"].shape
    return {"mels": mels, "width": width, "hidden": state[first_layer].shape[0]}
