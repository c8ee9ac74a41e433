"""Keys and constructor values of published networks that end in the Vocos decoder.

Their files are those of one trainer: an encoder of EnCodec's shape under
``feature_extractor.encodec``, the decoder under ``backbone`` and ``head``, discriminators beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.keys import Rule, State, drop, sizes
from tokenizers_vq.published.seanet_keys import network_of
from tokenizers_vq.published.seanet_keys import prepare as without_weight_norm
from tokenizers_vq.published.wrappers import agree

INSIDE = "feature_extractor.encodec."
MELS = "feature_extractor.mel_spec."
SECTIONS = ("feature_extractor", "backbone", "head", "ddconfig", "quantconfig")
DEAD = "a second decoder, which the published code never runs"
TRAINER = r"(multiperioddisc|multiresddisc|dac|melspec_loss|discriminator)\..*"
BLOCK = r"backbone\.convnext\.(\d+)\."
FRONT = r"backbone\.pos_net\.(\d+)\."
LAYERS = {"dwconv": "depthwise", "pwconv1": "expand", "pwconv2": "contract"}


def prepare(state: Mapping[str, Tensor]) -> State:
    """Return ``state`` without weight normalisation and without the prefix of the encoder."""
    folded = without_weight_norm(state)
    return {key.removeprefix(INSIDE): value for key, value in folded.items()}


def values_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor values, also of a training config with ``init_args``; of all parts."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key in SECTIONS and isinstance(value, Mapping):
            flat |= dict(value.get("init_args") or value.get("params") or value)
        elif not isinstance(value, Mapping):
            flat[key] = value
    return flat


def encoder_of(
    state: Mapping[str, Tensor], given: Mapping[str, Any], where: str, *, causal: bool = False
) -> dict[str, Any]:
    """Return ``dim`` and ``part``, the config of the encoder, with reflections at the ends.

    Args:
        state: prepared tensors.
        given: constructor values by upstream names.
        where: the name the messages start with.
        causal: what the encoder sees, which its tensors do not say.

    Raises:
        CheckpointError: a constructor value that the tensors contradict.
    """
    told = {
        "dim": given.get("dimension", given.get("input_channels")),
        "width": given.get("n_filters"),
        "ratios": given.get("dowmsamples"),  # so it is written
    }
    encoder = {key: value for key, value in state.items() if key.startswith("encoder.")}
    network = network_of(encoder, told, where)
    network["part"]["conventions"] |= {"causal": causal, "pad": "reflect"}
    return network


def decoder_of(
    state: Mapping[str, Tensor], given: Mapping[str, Any], where: str, stride: int
) -> dict[str, Any]:
    """Return the config of the decoder.

    Args:
        state: prepared tensors.
        given: constructor values by upstream names.
        where: the name the messages start with.
        stride: samples per latent, unless a value says otherwise.

    Raises:
        CheckpointError: a constructor value that the tensors contradict.
        KeyError: a tensor that every such network has is missing.
    """
    width, dim = state["backbone.embed.weight"].shape[:2]
    adaptive = state.get("backbone.norm.scale.weight")
    found = {
        "input_channels": dim,
        "dim": width,
        "intermediate_dim": state["backbone.convnext.0.pwconv1.weight"].shape[0],
        "num_layers": sizes(state, BLOCK),
        "n_fft": state["head.out.weight"].shape[0] - 2,
        "adanorm_num_embeddings": None if adaptive is None else adaptive.shape[0],
        "hop_length": stride,
    }
    agree(given, found, where)
    ways = {
        "padding": given.get("padding", "same"),
        "attention": any(key.startswith("backbone.pos_net.") for key in state),
        "ids": found["adanorm_num_embeddings"] or 0,
    }
    return {
        "name": "vocos",
        "stride": stride,
        "width": width,
        "inner": found["intermediate_dim"],
        "depth": found["num_layers"],
        "n_fft": found["n_fft"],
        "conventions": ways,
    }


def stride_of(network: Mapping[str, Any]) -> int:
    """Return the samples per latent of an encoder's config."""
    return math.prod(network["part"]["ratios"])


def decoder_rules() -> list[Rule]:
    """Return the rules of the decoder, and of what only training needs."""
    ours = "decoder."
    return [
        Rule(r"backbone\.embed\.(weight|bias)", rf"{ours}embed.\1"),
        *_norm_rules(r"backbone\.norm\.", f"{ours}norm."),
        *_norm_rules(BLOCK + r"norm\.", rf"{ours}blocks.\1.norm."),
        Rule(BLOCK + "gamma", rf"{ours}blocks.\1.gamma"),
        Rule(
            BLOCK + r"(dwconv|pwconv1|pwconv2)\.(weight|bias)",
            lambda m: f"{ours}blocks.{m[1]}.{LAYERS[m[2]]}.{m[3]}",
        ),
        Rule(FRONT + r"(weight|bias)", rf"{ours}front.\1.\2"),
        Rule(FRONT + r"(norm|norm1|norm2|conv1|conv2|q|k|v)\.(weight|bias)",
             rf"{ours}front.\1.\2.\3"),
        Rule(FRONT + r"proj_out\.(weight|bias)", rf"{ours}front.\1.proj.\2"),
        Rule(r"backbone\.final_layer_norm\.(weight|bias)", rf"{ours}last_norm.\1"),
        Rule(r"head\.out\.(weight|bias)", rf"{ours}out.\1"),
        drop(r"head\.istft\.window", "a Hann window, which is computed"),
        drop(TRAINER, "discriminators and the spectrograms of a loss"),
    ]  # fmt: skip


def _norm_rules(upstream: str, ours: str) -> list[Rule]:
    """Return the rules of a norm with one gain and bias, or with some to choose from."""
    return [
        Rule(upstream + r"(scale|shift)\.weight", lambda m: m.expand(ours) + str(m[m.re.groups])),
        Rule(upstream + "weight", ours + "scale", lambda gain: gain[None]),
        Rule(upstream + "bias", ours + "shift", lambda bias: bias[None]),
    ]
