"""Checkpoints of Vocos: samples from the tokens of EnCodec, or from mel spectrograms.

Its published file for EnCodec's tokens holds the codebooks and the decoder. With EnCodec's own
tensors beside them, as the authors' loader puts them there, it encodes too; without, it decodes
the tokens of an imported EnCodec. The one for spectrograms has no tokens: ``load_decoder`` reads
its decoder.

Reference:
    Siuzdak, Vocos: Closing the gap between time-domain and Fourier-based neural vocoders, 2023,
    https://arxiv.org/abs/2306.00814, sections 3 and 4.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.backbones.vocos import VocosDecoder
from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, State, drop, rename
from tokenizers_vq.published.seanet_keys import codebook_rules, network_rules, residual_codebooks
from tokenizers_vq.published.vocos_keys import (
    MELS,
    decoder_of,
    decoder_rules,
    encoder_of,
    stride_of,
    values_of,
)
from tokenizers_vq.published.vocos_keys import prepare as prepare_all
from tokenizers_vq.published.wrappers import constructor_values, unwrap
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

WHERE = "from_published('vocos')"
TABLE = "feature_extractor.codebook_weights"
CODES = 1024  # of each of EnCodec's codebooks, which the file has as one table
STRIDE = 320


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    given = values_of(config)
    dim = state[TABLE].shape[1]
    stride = int(given.get("hop_length", STRIDE))
    encoder: dict[str, Any] = {"name": "absent", "stride": [stride]}
    if _encodes(state):
        network = encoder_of(state, {}, WHERE, causal=True)
        encoder, stride = network["part"], stride_of(network)
    decoder = decoder_of(state, given, WHERE, stride)
    decoder["conventions"]["default_id"] = max(decoder["conventions"]["ids"] - 1, 0)
    rate = int(given.get("sample_rate", 24000))
    return {
        "signal": {"kind": "audio", "channels": 1, "sample_rate": rate},
        "dim": dim,
        "encoder": encoder,
        "quantizer": residual_codebooks(state, {}, WHERE),
        "decoder": decoder,
    }


def prepare(state: Mapping[str, Tensor]) -> State:
    """Return ``state`` with one tensor per codebook that Vocos uses, by EnCodec's names.

    Raises:
        CheckpointError: the codebooks were trained on, so that EnCodec's do not make its tokens.
    """
    found = prepare_all(state)
    table = found.get(TABLE)
    if table is None:
        return found
    codes = found.get("quantizer.vq.layers.0._codebook.embed", table[:CODES]).shape[0]
    for level, codebook in enumerate(torch.split(table, codes)):
        name = f"quantizer.vq.layers.{level}._codebook."
        if not torch.equal(found.get(name + "embed", codebook), codebook):
            raise CheckpointError(
                f"{WHERE}: expected EnCodec's codebooks in {TABLE}; got other ones at level "
                f"{level}. Leave out feature_extractor.encodec to decode EnCodec's tokens."
            )
        if name + "embed" not in found:
            found[name + "embed"] = codebook
            found[name + "embed_avg"] = codebook
            found[name + "inited"] = torch.ones(1)
    levels = table.shape[0] // codes
    return {key: value for key, value in found.items() if _level(key) < levels}


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if any(key.startswith(MELS) for key in state):
        return "one of mel spectrograms, which has no tokens: published.vocos.load_decoder reads it"
    if TABLE not in state:
        return f"one without {TABLE}, the codebooks of the tokens"
    return None


def rules(_: Mapping[str, Any]) -> list[Rule]:
    """Return the rules from upstream keys to those of a tokenizer."""
    return [
        drop(r"decoder\..*", "EnCodec's own decoder, which this one replaces"),
        drop(r"feature_extractor\.codebook_weights", "codebooks, which come one by one"),
        *network_rules(),
        *codebook_rules(),
        *decoder_rules(),
    ]


FAMILY = Family(configure, rules, check=check, prepare=prepare)


def load_decoder(
    state_dict: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> VocosDecoder:
    """Return the decoder of a published file in eval mode, also of one for mel spectrograms.

    Args:
        state_dict: what the published file holds.
        config: upstream constructor values; without ``hop_length`` windows overlap by three
            quarters, and without ``padding`` spectrograms are centred.

    Raises:
        CheckpointError: a key is missing or unexpected, or a value contradicts the tensors.
    """
    state = prepare_all(unwrap(state_dict, "ema", "load_decoder"))
    given = values_of(constructor_values(config or {}))
    if any(key.startswith(MELS) for key in state):
        given = {"padding": "center", **given}
    stride = int(given.get("hop_length", (state["head.out.weight"].shape[0] - 2) // 4))
    options = decoder_of(state, given, "load_decoder", stride)
    signal = SignalSpec("audio", 1, sample_rate=int(given.get("sample_rate", 24000)))
    dim = state["backbone.embed.weight"].shape[1]
    decoder: VocosDecoder = build("decoder", options, dim=dim, signal=signal)
    rest = drop(r"(feature_extractor|encoder|decoder|quantizer)\..*", "what makes the latents")
    ours = rename(state, [rest, *decoder_rules()], "load_decoder")
    decoder.load_state_dict({key.removeprefix("decoder."): value for key, value in ours.items()})
    return decoder.eval()


def _encodes(state: Mapping[str, Tensor]) -> bool:
    return any(key.startswith("encoder.") for key in state)


def _level(key: str) -> int:
    """Return the number of the codebook that ``key`` is of, -1 if it is of none."""
    return int(key.split(".")[3]) if key.startswith("quantizer.vq.layers.") else -1
