"""Mimi, in the layout of its authors and in that of transformers.

The authors rotate neighbouring channels of queries and keys, transformers channels half a head
apart, as we do: rows of the former are put in the other order. Where a signal does not fill its
last position, the authors complete the signal, and in transformers each convolution what it gets:
the codes of the last position then differ, and here they are those of the layout.

Reference:
    Defossez et al., Moshi: a speech-text foundation model for real-time dialogue, 2024,
    https://arxiv.org/abs/2410.00037, section 3.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, State, sizes
from tokenizers_vq.published.seanet_keys import PADS, network_of, network_rules, values_of
from tokenizers_vq.published.seanet_keys import prepare as folded
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('mimi')"
CONTEXT = 250  # positions that one sees, itself among them, where the config does not say
# a file of transformers, or its network in memory: what the authors call it
NATIVE = (
    (r"^(encoder|decoder)\.\1_seanet\.", r"\1."),
    (r"^(encoder|decoder)\.\1_transformer\.", r"\1_transformer."),
    (r"^(?:encoder|decoder)\.(downsample|upsample)\.", r"\1."),
    (r"_transformer\.layers\.", "_transformer.transformer.layers."),
    (r"\.input_layernorm\.", ".norm1."),
    (r"\.post_attention_layernorm\.", ".norm2."),
    (r"\.self_attn_layer_scale\.", ".layer_scale_1."),
    (r"\.mlp_layer_scale\.", ".layer_scale_2."),
    (r"\.mlp\.fc([12])\.", r".linear\1."),
    (r"\.self_attn\.o_proj\.", ".self_attn.out_projs.0."),
    (r"quantizer\.semantic_residual_vector_quantizer\.", "quantizer.rvq_first."),
    (r"quantizer\.acoustic_residual_vector_quantizer\.", "quantizer.rvq_rest."),
    (r"(rvq_\w+)\.layers\.(\d+)\.codebook\.", r"\1.vq.layers.\2._codebook."),
    (r"_codebook\.initialized$", "_codebook._initialized"),
    (r"_codebook\.embed_sum$", "_codebook.embedding_sum"),
    (r"^downsample\.conv\.weight$", "downsample.conv.conv.conv.weight"),
    (r"^upsample\.conv\.weight$", "upsample.convtr.convtr.convtr.weight"),
)
STACK = r"(encoder|decoder)_transformer\.transformer\.layers\.(\d+)\."
CODEBOOK = r"quantizer\.rvq_(first|rest)\.vq\.layers\.(\d+)\._codebook\."
PARTS = ("q_proj", "k_proj", "v_proj")
# constructor values of the transformers, under our names: of the authors, of transformers
LAYERS = {
    "heads": ("num_heads", "num_attention_heads"),
    "context": ("context", "sliding_window"),
    "period": ("max_period", "rope_theta"),
    "eps": ("norm_eps",),
}


def prepare(state: Mapping[str, Tensor]) -> State:
    """Return tensors by the authors' keys, with codes for sums of latents and their numbers.

    Queries, keys and values of transformers stay in its order of channels, as ``qkv``. The linear
    maps of both parts of the quantizer become one each way.
    """
    found: State = {}
    for key, value in folded(state).items():
        name = key
        for pattern, target in NATIVE:
            name = re.sub(pattern, target, name)
        found[name] = value
    for key in [key for key in found if key.endswith(".q_proj.weight")]:
        names = [key.replace("q_proj", part) for part in PARTS]
        found[key.replace("q_proj", "qkv")] = torch.cat([found.pop(name) for name in names])
    for key in [key for key in found if key.endswith(".embedding_sum")]:
        usage = found[key.replace("embedding_sum", "cluster_usage")]
        codes = found[key].float() / usage.float().clamp(min=1e-5)[:, None]
        found[key.replace("embedding_sum", "embed")] = codes
    for side, dim in (("in", 0), ("out", 1)):
        names = [f"quantizer.rvq_{part}.{side}put_proj.weight" for part in ("first", "rest")]
        if all(name in found for name in names):
            maps = [found.pop(name).squeeze(-1) for name in names]
            found[f"quantizer.project_{side}.weight"] = torch.cat(maps, dim=dim)
    return found


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    given = values_of(config)
    ours = {"codes": given.pop("codes", None), "levels": given.pop("levels", None)}
    network = network_of(state, given, WHERE)
    ways = network["part"]["conventions"]
    ways["causal"] = bool(given.get("causal", True))
    ways["pad"] = PADS[given.get("pad", "constant")]
    part = {**network["part"], "name": "mimi", "transformer": transformer_of(state, config)}
    part["resample"] = state["downsample.conv.conv.conv.weight"].shape[-1] // 2
    signal = {
        "kind": "audio",
        "channels": network["channels"],
        "sample_rate": int(given.get("sample_rate", 24000)),
    }
    whole = any(".in_projs." in key for key in state)
    quantizer = codebooks_of(state, {key: value for key, value in ours.items() if value})
    return {
        "signal": signal,
        "dim": network["dim"],
        "encoder": {**part, "whole": whole},
        "quantizer": quantizer,
        "decoder": part,
    }


def transformer_of(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the option ``transformer`` of encoder and decoder."""
    flat = {**config, **config.get("transformer", {})}
    given = {ours: flat[name] for ours, names in LAYERS.items() for name in names if flat.get(name)}
    hidden = state["encoder_transformer.transformer.layers.0.linear1.weight"].shape[0]
    return {
        "layers": sizes(state, r"encoder_transformer\.transformer\.layers\.(\d+)\."),
        "heads": int(given.get("heads", 8)),
        "hidden": hidden,
        "past": int(given.get("context", CONTEXT)) - 1,
        "period": float(given.get("period", 10000.0)),
        "eps": float(given.get("eps", 1e-5)),
    }


def codebooks_of(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the level for what is said and of the stack beside it.

    Raises:
        CheckpointError: a constructor value that the tensors contradict.
    """
    table = state["quantizer.rvq_first.vq.layers.0._codebook.embed"]
    counts = {
        part: sizes(state, rf"quantizer\.rvq_{part}\.vq\.layers\.(\d+)\.")
        for part in ("first", "rest")
    }
    agree(given, {"codes": table.shape[0], "levels": sum(counts.values())}, WHERE)
    level = {
        "name": "vq",
        "codebook_size": table.shape[0],
        "codebook_update": "ema",
        "commitment_weight": 1.0,
        "kmeans_init": "random",
    }
    stacks = [
        {"name": "residual", "stages": {"repeat": count, "of": level}} for count in counts.values()
    ]
    return {"name": "split_residual", "code_dim": 2 * table.shape[1], "groups": stacks}


def rules(config: Mapping[str, Any]) -> list[Rule]:
    """Return the rules for the config of a tokenizer."""
    side = r"\1.layers.1.layers.\2."
    halves = _halves(config["encoder"]["transformer"]["heads"])
    code = _codebook_key
    return [
        *(_nested(rule) for rule in network_rules()),
        Rule(r"downsample\.conv\.conv\.conv\.weight", "encoder.layers.2.conv.weight"),
        Rule(r"upsample\.convtr\.convtr\.convtr\.weight", "decoder.layers.0.conv.weight"),
        Rule(STACK + r"self_attn\.in_projs\.0\.weight", side + "attn.qkv.weight", halves),
        Rule(STACK + r"self_attn\.qkv\.weight", side + "attn.qkv.weight"),
        Rule(STACK + r"self_attn\.out_projs\.0\.weight", side + "attn.proj.weight"),
        Rule(STACK + r"norm([12])\.(weight|bias)", side + r"norm\3.\4"),
        Rule(STACK + r"layer_scale_([12])\.scale", side + r"scale\3"),
        Rule(STACK + r"linear1\.weight", side + "mlp.up.weight"),
        Rule(STACK + r"linear2\.weight", side + "mlp.down.weight"),
        Rule(CODEBOOK + "(embed)", code("codebook")),
        Rule(CODEBOOK + "(embedding_sum)", code("cluster_sum")),
        Rule(CODEBOOK + "(cluster_usage)", code("cluster_size")),
        Rule(CODEBOOK + "(_initialized)", code("initialized"), lambda flag: flag.reshape(())),
        Rule(r"quantizer\.(project_in|project_out)\.weight", r"quantizer.\1.weight"),
    ]


def _nested(rule: Rule) -> Rule:
    """Return a rule of networks that are one layer of ours: first or, in the decoder, last."""

    def target(match: re.Match[str]) -> str:
        place = 0 if match.group(1) == "encoder" else 2
        return match.expand(str(rule.target).replace(".layers.", f".layers.{place}.", 1))

    return Rule(rule.pattern, target, rule.change)


def _codebook_key(name: str) -> Callable[[re.Match[str]], str]:
    """Return where a tensor of a level goes; the first level is a part by itself."""

    def target(match: re.Match[str]) -> str:
        part = 0 if match.group(1) == "first" else 1
        return f"quantizer.groups.{part}.stages.{match.group(2)}.{name}"

    return target


def _halves(heads: int) -> Callable[[Tensor], Tensor]:
    """Return what puts rows of q and k in ``(3 W, W)`` from pairs into two halves per head."""

    def change(rows: Tensor) -> Tensor:
        q, k, v = rows.chunk(3)
        shape = (heads, -1, 2, rows.shape[1])
        q, k = (part.reshape(shape).transpose(1, 2).reshape(v.shape) for part in (q, k))
        return torch.cat([q, k, v])

    return change


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    if not any(key.startswith("quantizer.rvq_first.") for key in state):
        return "one without a level for what is said"
    return None


FAMILY = Family(configure, rules, check=check, prepare=prepare)
