"""Keys and constructor values that TiTok, TA-TiTok and One-D-Piece share.

One network: class token, squares and latents in one transformer on either side. The released
two-stage models scramble their latents and score the codes of MaskGIT's tokenizer, whose decoder
may be in the file (``pixel_*``); the later ones make pixels themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published.importing import Weights
from tokenizers_vq.published.keys import Rule, drop, sizes
from tokenizers_vq.published.vit_keys import block_rules
from tokenizers_vq.published.wrappers import agree

HEADS = {"tiny": 4, "small": 8, "base": 12, "large": 16}  # no published model is tiny
BY_WIDTH = {512: "small", 768: "base", 1024: "large"}
HALVES = ("encoder", "decoder")
TEXT = "decoder.text_guidance_proj.weight"


def configure(
    state: Weights, config: Mapping[str, Any], where: str, *, prefixes: bool = False
) -> dict[str, Any]:
    """Return our config of the network that the tensors belong to.

    Args:
        state: upstream tensors.
        config: the upstream config with ``model.vq_model``, or what stands under it.
        where: the name the messages start with.
        prefixes: whether the decoder was trained for the first n latents too.

    Raises:
        CheckpointError: a constructor value says other than the tensors.
        ConfigError: the size of a transformer is not known.
        KeyError: a tensor is missing.
    """
    given = _values(config)
    patch, side = _squares(state)
    tokens, dim = len(state["latent_tokens"]), state["decoder.decoder_embed.weight"].shape[1]
    two_stages = "decoder.ffn.2.weight" in state
    agree(
        given,
        {"token_size": dim, "num_latent_tokens": tokens, "is_legacy": two_stages}
        | {"vit_enc_patch_size": patch, "vit_dec_patch_size": patch},
        where,
    )
    shared = {"name": "titok", "size": side * patch, "patch": patch, "num_tokens": tokens}
    shared["prefixes"] = prefixes
    encoder = {**shared, **_trunk(state, "encoder", given, where), "scramble": two_stages}
    decoder = {**shared, **_trunk(state, "decoder", given, where), "text": TEXT in state}
    if two_stages:
        decoder["codes"] = state["decoder.ffn.2.weight"].shape[0]
        decoder["pixels"] = _pixels(state)
    return {
        "signal": {"kind": "image", "channels": state["encoder.patch_embed.weight"].shape[1]},
        "dim": dim,
        "encoder": encoder,
        "decoder": decoder,
        "quantizer": _head(state, given, two_stages, where),
    }


def rules(config: Mapping[str, Any]) -> Sequence[Rule]:
    """Return the rules from upstream keys to those of our ``config``."""
    dim, patch = config["dim"], config["decoder"]["patch"]
    half = r"(encoder|decoder)\."
    found = [
        Rule(r"latent_tokens", "encoder.latents"),
        Rule(rf"{half}class_embedding", r"\1.class_token"),
        Rule(rf"{half}positional_embedding", r"\1.positions"),
        Rule(rf"{half}latent_token_positional_embedding", r"\1.latent_positions"),
        Rule(rf"{half}ln_pre\.(weight|bias)", r"\1.transformer.norm_in.\2"),
        Rule(rf"{half}ln_post\.(weight|bias)", r"\1.transformer.norm_out.\2"),
        Rule(r"encoder\.patch_embed\.weight", "encoder.embed.weight", _flat),
        Rule(r"encoder\.patch_embed\.bias", "encoder.embed.bias"),
        # continuous models: the mean, without the logarithm of the variance behind it
        Rule(r"encoder\.conv_out\.weight", "encoder.to_latent.weight", lambda w: _flat(w)[:dim]),
        Rule(r"encoder\.conv_out\.bias", "encoder.to_latent.bias", lambda b: b[:dim]),
        Rule(r"decoder\.decoder_embed\.(weight|bias)", r"decoder.from_latent.\1"),
        Rule(r"decoder\.mask_token", "decoder.mask_token", lambda t: t[0]),
        Rule(r"decoder\.text_guidance_proj\.(weight|bias)", r"decoder.text_proj.\1"),
        Rule(r"decoder\.text_guidance_positional_embedding", "decoder.text_positions"),
        Rule(r"quantize\.embedding\.weight", "quantizer.codebook"),
        drop(r"quantize\.embed_prob", "how often each code was used (clustering_vq)"),
        *_head_rules(config, patch),
    ]
    for name in HALVES:
        found += block_rules(rf"{name}\.transformer\.", f"{name}.transformer.blocks.")
    return found


def _head_rules(config: Mapping[str, Any], patch: int) -> list[Rule]:
    """Return the rules of what follows the decoder's transformer."""
    if "codes" not in config["decoder"]:
        channels = config["signal"]["channels"]

        def channels_first(rows: Tensor) -> Tensor:
            cells = rows.reshape(patch * patch, channels, -1)  # published (row, column, channel)
            return cells.transpose(0, 1).flatten(0, 1)

        return [
            Rule(r"decoder\.ffn\.0\.weight", "decoder.head.weight", channels_first),
            Rule(r"decoder\.ffn\.0\.bias", "decoder.head.bias", lambda b: channels_first(b)[:, 0]),
            Rule(r"decoder\.conv_out\.(weight|bias)", r"decoder.conv_out.\1"),
        ]
    inner = r"(\d+)\.(?:res_)?blocks?\.(\d+\..+)"
    return [
        Rule(r"decoder\.ffn\.0\.(weight|bias)", r"decoder.scores.hidden.\1", _rows),
        Rule(r"decoder\.ffn\.2\.(weight|bias)", r"decoder.scores.out.\1", _rows),
        Rule(r"pixel_quantize\.embedding\.weight", "decoder.codebook"),
        Rule(rf"pixel_decoder\.up\.{inner}", r"decoder.pixels.up.\1.block.\2"),
        Rule(
            r"pixel_decoder\.up\.(\d+)\.upsample_conv\.(\w+)",
            r"decoder.pixels.up.\1.resample.conv.\2",
        ),
        Rule(r"pixel_decoder\.(mid\..+)", r"decoder.pixels.\1"),
        Rule(r"pixel_decoder\.((?:conv_in|norm_out|conv_out)\.\w+)", r"decoder.pixels.\1"),
    ]


def _values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands under ``model.vq_model``, or all if nothing is around it."""
    inner = config
    for key in ("model", "vq_model"):
        if isinstance(inner.get(key), Mapping):
            inner = inner[key]
    return dict(inner)


def _squares(state: Weights) -> tuple[int, int]:
    """Return the side of a square, and the squares along a side of the picture."""
    squares = state["encoder.positional_embedding"].shape[0] - 1
    return state["encoder.patch_embed.weight"].shape[-1], round(squares**0.5)


def _trunk(state: Weights, half: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return width, layers and heads of one side."""
    width = state[f"{half}.positional_embedding"].shape[1]
    name = given.get(f"vit_{half[:3]}_model_size") or BY_WIDTH.get(width)
    if name not in HEADS:
        raise ConfigError(
            f"{where}: expected vit_{half[:3]}_model_size of {', '.join(HEADS)}; got {name!r} for "
            f"a width of {width}. Pass that of the published model."
        )
    layers = sizes(state, rf"{half}\.transformer\.(\d+)\.")
    return {"width": width, "layers": layers, "heads": HEADS[name]}


def _head(state: Weights, given: Mapping[str, Any], two_stages: bool, where: str) -> dict[str, Any]:
    """Return the config of the quantizer; continuous models have none in the file."""
    if "quantize.embedding.weight" not in state:
        return {"name": "gaussian"}
    size = state["quantize.embedding.weight"].shape[0]
    agree(given, {"codebook_size": size}, where)
    return {
        "name": "vq",
        "codebook_size": size,
        "metric": "cosine" if given.get("use_l2_norm", two_stages) else "euclidean",
        "commitment_weight": float(given.get("commitment_cost", 0.25)),
        "restart_threshold": 0.0,
    }


def _pixels(state: Weights) -> dict[str, Any] | None:
    """Return the options of the decoder from codes to pixels; None where the file has none."""
    if "pixel_decoder.conv_in.weight" not in state:
        return None
    levels = sizes(state, r"pixel_decoder\.up\.(\d+)\.")
    width = state["pixel_decoder.norm_out.weight"].shape[0]
    blocks = sizes(state, r"pixel_decoder\.up\.0\.block\.(\d+)\.")
    last = f"block.{blocks - 1}.norm2.weight"
    widths = [state[f"pixel_decoder.up.{i}.{last}"].shape[0] for i in range(levels)]
    return {
        "dim": state["pixel_quantize.embedding.weight"].shape[1],
        "family": "maskgit",
        "width": width,
        "channel_mult": [each // width for each in widths],
        "blocks": blocks,
    }


def _flat(weight: Tensor) -> Tensor:
    """Return the matrix ``(out, in * h * w)`` of a convolution."""
    return weight.flatten(1)


def _rows(tensor: Tensor) -> Tensor:
    """Return the matrix of a 1x1 convolution, and a bias as it is."""
    return tensor.flatten(1) if tensor.ndim > 1 else tensor
