"""What the checkpoints of DAC, SNAC and BigCodec share: networks of numbered layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tokenizers_vq.published.keys import Rule, drop, sizes


@dataclass(frozen=True)
class Layout:
    """Where the parts of a checkpoint are.

    Attributes:
        encoder: prefix of the encoder's layers.
        decoder: prefix of the decoder's layers.
        last: how the keys of the weights of convolutions end.
    """

    encoder: str
    decoder: str
    last: str = ".weight"


def column(x: Tensor) -> Tensor:
    """Return one number per channel, however it was kept, as ``(C, 1)``."""
    return x.reshape(-1, 1)


def matrix(x: Tensor) -> Tensor:
    """Return the weight of a convolution with 1 tap as that of a linear map, ``(out, in)``."""
    return x.reshape(x.shape[0], x.shape[1])


def _ours(side: str) -> Any:
    """Return the target of a layer's tensor: containers have no name here, only places."""

    def target(match: re.Match[str]) -> str:
        return f"{side}.layers.{match.group(1).replace('block.', '')}"

    return target


def layer_rules(encoder: str, decoder: str) -> tuple[Rule, ...]:
    """Return the rules of both networks.

    Args:
        encoder: regular expression in front of the place of an encoder's layer.
        decoder: the same of the decoder.
    """
    rules = [drop(r".*\.rel_pos\.inv_freq", "follows from the width"),
             drop(r".*\.filter", "follows from the cutoff")]  # fmt: skip
    for side, prefix in (("encoder", encoder), ("decoder", decoder)):
        rules.append(Rule(rf"{prefix}\.(\d+\.(?:.*\.)?(?:alpha|beta))", _ours(side), column))
        rules.append(Rule(rf"{prefix}\.(\d+\..*)", _ours(side)))
    return tuple(rules)


def codebook_rules(prefix: str, codebook: str, ours: str) -> tuple[Rule, ...]:
    r"""Return the rules of factorised codebooks.

    Args:
        prefix: regular expression in front of the number of a codebook.
        codebook: name of its table.
        ours: our prefix, in which ``\1`` is the number.
    """
    return (
        Rule(rf"{prefix}\.(\d+)\.in_proj\.weight", rf"{ours}project_in.weight", matrix),
        Rule(rf"{prefix}\.(\d+)\.out_proj\.weight", rf"{ours}project_out.weight", matrix),
        Rule(rf"{prefix}\.(\d+)\.in_proj\.bias", rf"{ours}project_in.bias"),
        Rule(rf"{prefix}\.(\d+)\.out_proj\.bias", rf"{ours}project_out.bias"),
        Rule(rf"{prefix}\.(\d+)\.{codebook}\.weight", rf"{ours}codebook"),
    )


RULES = (
    *layer_rules(r"encoder\.block", r"decoder\.model"),
    *codebook_rules(r"quantizer\.quantizers", "codebook", r"quantizer.stages.\1."),
)


def ratios_of(state: Mapping[str, Tensor], prefix: str, conv: str) -> list[int]:
    """Return the strides of a network: half the taps of its strided convolutions.

    Args:
        state: tensors without weight normalisation.
        prefix: of the network's layers.
        conv: regular expression of the strided convolution in a level.
    """
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.{conv}\.weight")
    found = {int(m.group(1)): v for k, v in state.items() if (m := pattern.fullmatch(k))}
    return [int(found[place].shape[-1]) // 2 for place in sorted(found)]


def factorized(
    state: Mapping[str, Tensor], prefix: str, codebook: str = "codebook"
) -> list[dict[str, Any]]:
    """Return the configs of factorised codebooks, in order."""
    count = sizes(state, rf"{re.escape(prefix)}\.(\d+)\.")
    tables = [state[f"{prefix}.{i}.{codebook}.weight"] for i in range(count)]
    return [
        {
            "name": "factorized",
            "codebook_size": int(table.shape[0]),
            "code_dim": int(table.shape[1]),
        }
        for table in tables
    ]


def network(
    state: Mapping[str, Tensor], layout: Layout, conventions: Mapping[str, Any]
) -> dict[str, Any]:
    """Return ``signal``, ``dim``, ``encoder`` and ``decoder`` of a tokenizer's config.

    Args:
        state: tensors without weight normalisation.
        layout: where they are.
        conventions: of the backbone.
    """
    first = state[f"{layout.encoder}.0{layout.last}"]
    entry = 0
    while state[f"{layout.decoder}.{entry}{layout.last}"].shape[1] == 1:  # depthwise
        entry += 1
    enter = state[f"{layout.decoder}.{entry}{layout.last}"]
    ways = dict(conventions)
    return {
        "signal": {"kind": "audio", "channels": int(first.shape[1])},
        "dim": int(enter.shape[1]),
        "encoder": {
            "name": "dac",
            "width": int(first.shape[0]),
            "ratios": ratios_of(state, layout.encoder, r"block\.4"),
            "conventions": ways,
        },
        "decoder": {
            "name": "dac",
            "width": int(enter.shape[0]),
            "ratios": ratios_of(state, layout.decoder, r"block\.1"),
            "conventions": dict(ways),
        },
    }
