"""EnCodec at 24 kHz, 48 kHz stereo and 32 kHz, and what its library trained with it.

Files of the authors' first package, of their later library and of transformers are read. The
latter two leave out the 1x1 convolutions in shortcuts and pad with zeros where the first reflects.

Reference:
    Defossez et al., High Fidelity Neural Audio Compression, 2022,
    https://arxiv.org/abs/2210.13438, section 3;
    Copet et al., Simple and Controllable Music Generation, 2023,
    https://arxiv.org/abs/2306.05284, section 3.1 (32 kHz).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.seanet_keys import (
    PADS,
    codebook_rules,
    network_of,
    network_rules,
    prepare,
    residual_codebooks,
    tokenizer_config,
    values_of,
)

WHERE = "from_published('encodec')"
LATER = 64  # channels of the first convolution of the later library's networks: not causal
# by samples per latent and that width, where the config does not say
RATES = {(320, 32): 24000, (320, LATER): 16000, (640, LATER): 32000}


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    given = values_of(config)
    network = network_of(state, given, WHERE)
    ways = network["part"]["conventions"]
    stereo = ways["norm"] == "group"
    width, hop = network["part"]["width"], math.prod(network["part"]["ratios"])
    later = width == LATER and not ways["shortcut"]
    ways["causal"] = bool(given.get("causal", not stereo and not later))
    reflects = ways["shortcut"] or "encoder.layers.0.conv.bias" in state  # or is of transformers
    ways["pad"] = PADS[given.get("pad", "reflect" if reflects else "constant")]
    rate = 48000 if stereo else RATES.get((hop, width), 24000)
    rate = int(given.get("sample_rate", rate))
    config_of = tokenizer_config(network, residual_codebooks(state, given, WHERE), rate)
    config_of["encoder"] = {**network["part"], **segments(given, rate, stereo)}
    return config_of


def segments(given: Mapping[str, Any], rate: int, stereo: bool) -> dict[str, Any]:
    """Return the option ``segments`` of the encoder, where signals are cut or scaled.

    Args:
        given: constructor values by our names.
        rate: samples per second.
        stereo: whether it is a network as that of 48 kHz, whose values are the defaults.
    """
    seconds = given.get("seconds", 1.0 if stereo and "loudness" not in given else None)
    loudness = bool(given.get("loudness", stereo))
    if seconds is None and not loudness:
        return {}
    length = None if seconds is None else int(seconds * rate)
    kept = max(1, int((1.0 - given.get("overlap", 0.01)) * length)) if length else 0
    cut = {"length": length, "overlap": length - kept} if length else {}
    return {"segments": {"loudness": loudness, **cut}}


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if not any(key.startswith("quantizer.") for key in state):
        return "one without a quantizer"
    if any("_reverse" in key for key in state):
        return "one with bidirectional recurrent layers, as SpeechTokenizer has them"
    return None


FAMILY = Family(
    configure,
    rules=lambda _: (*network_rules(), *codebook_rules()),
    check=check,
    prepare=prepare,
)
