"""XY-Tokenizer: 8 tokens of 1,024 at 12.5 Hz of 16 kHz, of what is said and of how it sounds.

Reference:
    Gong et al., XY-Tokenizer: Mitigating the Semantic-Acoustic Conflict in Low-Bitrate Speech
    Codecs, 2025, https://arxiv.org/abs/2506.23325, section 3.
    Differs from the authors' code: a signal that does not fill its last position gets tokens for
    it, where theirs drops it; those before are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, State, drop, fold_weight_norm, sizes
from tokenizers_vq.published.vocos_keys import BLOCK, LAYERS
from tokenizers_vq.published.whisper_keys import (
    TRANSFORMERS,
    heads_of,
    layer_rules,
    widths_of,
)
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('xy_tokenizer')"
STACKS = {  # what the published transformers are called, and here
    "semantic_encoder": "encoder.said.stack",
    "semantic_encoder_adapter": "encoder.said_adapter",
    "acoustic_encoder": "encoder.sound.stack",
    "pre_rvq_adapter": "encoder.joined",
    "post_rvq_adapter": "decoder.adapter",
    "acoustic_decoder": "decoder.stack",
}
MAPS = {  # everything else that has a weight, a bias, or both
    r"semantic_encoder\.(conv[12])": r"encoder.said.{1}",
    r"acoustic_encoder\.(conv[12])": r"encoder.sound.{1}",
    r"pre_rvq_adapter\.(proj)": "encoder.join",
    r"downsample\.(gate|up|down)_proj": "encoder.down.{1}",
    r"downsample\.(layer_norm)": "encoder.down.norm",
    r"quantizer\.(input_proj)": "quantizer.project_in",
    r"quantizer\.(output_proj)": "quantizer.project_out",
    r"post_rvq_adapter\.(proj)": "decoder.narrow",
    r"post_rvq_adapter\.(out_proj)": "decoder.widen",
    r"upsample\.(up_conv)": "decoder.up",
    r"acoustic_decoder\.de(conv[12])": "decoder.{1}",
    r"vocos\.backbone\.(embed)": "decoder.vocos.embed",
    r"vocos\.backbone\.(final_layer_norm)": "decoder.vocos.last_norm",
    r"vocos\.head\.(out)": "decoder.vocos.out",
}
LEVEL = r"quantizer\.quantizers\.(\d+)\."
NAMES = {"codebook": "codebook", "cluster_size": "cluster_size", "embed_avg": "cluster_sum"}
FIXED = {  # constructor values that no tensor shows and that are built in
    "sample_rate": 16000,
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 400,
    "chunk_length": 30,
    "max_audio_seconds": 30,
    "stride_size": 2,
    "avg_pooler": 4,
    "stride": 4,
    "hop_size": 160,
    "padding": "same",
    "scale_embedding": False,
    "activation_function": "gelu",
}


def prepare(state: Mapping[str, Tensor]) -> State:
    """Return tensors without weight normalisation, and 1x1 convolutions as matrices."""
    folded = fold_weight_norm(state)
    return {
        key: value[..., 0] if key.startswith("quantizer.") and value.ndim == 3 else value
        for key, value in folded.items()
    }


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    sections = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    _check_fixed(config, sections)
    shape = widths_of(state, "semantic_encoder.", "semantic_encoder.layers.0.fc1.weight")
    depths = {name: sizes(state, rf"{name}\.layers\.(\d+)\.") for name in STACKS}
    width, codes = shape["width"], state["quantizer.quantizers.0.codebook"]
    levels = sizes(state, LEVEL)
    for section, found in _found(state, shape, depths, levels).items():
        agree(sections.get(section, {}), found, WHERE)
    network = {**shape, "name": "xy", "heads": _heads(sections, width)}
    ours = {"layers": "semantic_encoder", "adapters": "semantic_encoder_adapter"}
    theirs = {"layers": "acoustic_decoder", "adapters": "post_rvq_adapter"}
    vocos = state["vocos.backbone.convnext.0.pwconv1.weight"]
    stage = {
        "name": "vq",
        "codebook_size": codes.shape[0],
        "codebook_update": "ema",
        "commitment_weight": 1.0,
        "kmeans_init": "random",
    }
    return {
        "signal": {"kind": "audio", "channels": 1, "sample_rate": 16000},
        "dim": 4 * width,
        "encoder": {**network, **{key: depths[name] for key, name in ours.items()}},
        "quantizer": {
            "name": "residual",
            "code_dim": codes.shape[1],
            "stages": {"repeat": levels, "of": stage},
        },
        "decoder": {
            **network,
            **{key: depths[name] for key, name in theirs.items()},
            "vocos": [vocos.shape[1], vocos.shape[0], sizes(state, "vocos." + BLOCK)],
        },
    }


def _found(
    state: Mapping[str, Tensor], shape: Mapping[str, int], depths: Mapping[str, int], levels: int
) -> dict[str, dict[str, Any]]:
    """Return what the tensors say about each section of the constructor values."""
    codes = state["quantizer.quantizers.0.codebook"]
    vocos = state["vocos.backbone.convnext.0.pwconv1.weight"]
    found: dict[str, dict[str, Any]] = {}
    for name, depth in depths.items():
        side = "decoder" if name == "acoustic_decoder" else "encoder"
        found[f"{name}_kwargs"] = {"d_model": shape["width"], f"{side}_layers": depth}
    found["quantizer_kwargs"] = {
        "num_quantizers": levels,
        "codebook_size": codes.shape[0],
        "codebook_dim": codes.shape[1],
        "rvq_dim": codes.shape[1],
    }
    found["vocos_kwargs"] = {
        "dim": vocos.shape[1],
        "intermediate_dim": vocos.shape[0],
        "num_layers": sizes(state, "vocos." + BLOCK),
        "n_fft": state["vocos.head.out.weight"].shape[0] - 2,
    }
    return found


def _heads(sections: Mapping[str, Mapping[str, Any]], width: int) -> int:
    """Return the attention heads, of which all transformers have as many.

    Raises:
        ConfigError: they do not.
    """
    told = {
        int(value)
        for section in sections.values()
        for key, value in section.items()
        if key.endswith("_attention_heads")
    }
    if len(told) > 1:
        raise ConfigError(
            f"{WHERE}: expected one number of attention heads in all transformers; got "
            f"{sorted(told)}. No published network of this kind has several."
        )
    return heads_of(width, next(iter(told), None), WHERE)


def _check_fixed(config: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ``ConfigError`` for another rate, stride or activation than is built in."""
    for name, section in ({"": config} | dict(sections)).items():
        for key, value in section.items():
            if key in FIXED and value != FIXED[key] and (key, name) != ("n_fft", "vocos_kwargs"):
                raise ConfigError(
                    f"{WHERE}: expected {key} of {FIXED[key]}; got {value!r}. No published "
                    "network of this kind has another."
                )


def rules(_: Mapping[str, Any]) -> list[Rule]:
    """Return the rules from upstream keys to those of a tokenizer."""
    found = []
    for theirs, ours in STACKS.items():
        found += layer_rules(TRANSFORMERS, rf"{theirs}\.layers\.", f"{ours}.layers.")
        found.append(Rule(rf"{theirs}\.positional_embedding", f"{ours}.positions"))
        found.append(Rule(rf"{theirs}\.layer_norm\.(weight|bias)", rf"{ours}.norm.\1"))
    found += [
        Rule(rf"{theirs}\.(weight|bias)", ours.replace("{1}", r"\1") + r".\2")
        for theirs, ours in MAPS.items()
    ]
    return [*found, *_vocos_rules(), *_codebook_rules()]


def _vocos_rules() -> list[Rule]:
    block, ours = r"vocos\." + BLOCK, r"decoder.vocos.blocks.\1."
    return [
        Rule(r"vocos\.backbone\.norm\.weight", "decoder.vocos.norm.scale", _row),
        Rule(r"vocos\.backbone\.norm\.bias", "decoder.vocos.norm.shift", _row),
        Rule(block + r"norm\.weight", ours + "norm.scale", _row),
        Rule(block + r"norm\.bias", ours + "norm.shift", _row),
        Rule(block + "gamma", ours + "gamma"),
        *(
            Rule(block + rf"{theirs}\.(weight|bias)", rf"{ours}{name}.\2")
            for theirs, name in LAYERS.items()
        ),
        drop(r"vocos\.head\.istft\.window", "a Hann window, which is computed"),
    ]


def _codebook_rules() -> list[Rule]:
    ours = r"quantizer.stages.\1."
    return [
        *(Rule(LEVEL + theirs, ours + name) for theirs, name in NAMES.items()),
        Rule(LEVEL + "inited", ours + "initialized", lambda flag: flag.reshape(())),
    ]


def _row(gain: Tensor) -> Tensor:
    return gain[None]


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if not any(key.startswith("semantic_encoder_adapter.") for key in state):
        return "one without semantic_encoder_adapter"
    return None


FAMILY = Family(configure, rules, check=check, prepare=prepare)
