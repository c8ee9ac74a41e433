"""S3 tokenizers of CosyVoice, versions 1 to 3: tokens of speech recognisers, which only encode.

Their authors published ONNX files: ``tvq import`` reads them where the extra ``onnx`` is installed.
``from_published`` takes what they hold by the names of the nodes that use it, such as
``/blocks.0/attn/query/MatMul``, or the state dict that the S3Tokenizer package makes of them. The
initializers' own names are partly ``onnx::MatMul_2536`` and the like, which say nothing without
the graph: they are refused.

Versions 1 at 25 and at 50 Hz have the same tensors: say ``name="speech_tokenizer_v1_25hz"`` for the
former. Versions 2 and 3 are told from 1 by their tensors.

Reference:
    Du et al., CosyVoice, 2024, https://arxiv.org/abs/2407.05407, section 2.1;
    Du et al., CosyVoice 2, 2024, https://arxiv.org/abs/2412.10117, section 2.2.
    Differs from the package: signals that end in the overlap of two windows lose no tokens. Its
    release 0.3.0 has 1e-5 in the norms in front of version 2's attention where all before it and
    here have 1e-6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, State, drop, sizes
from tokenizers_vq.published.whisper_keys import OPENAI, heads_of, layer_rules, widths_of
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('s3_tokenizer')"
BLOCK = r"encoder\.blocks\.(\d+)\."
CODEBOOK = "quantizer._codebook."
DOWN = CODEBOOK + "project_down."
SECOND = 16000  # samples
WINDOWS = {"length": 30 * SECOND, "step": 26 * SECOND, "before": 2 * SECOND}
POSITIONS = 1500
LAYERS_V3 = 12
# what a node of the graph does with an initializer: our part of its name
NODES = (("MatMul", "weight"), ("Add_1", "bias"), ("Add", "bias"), ("Mul", "weight"))
GIVEN = {  # constructor values that the tensors determine
    "n_mels": "mels",
    "n_audio_state": "width",
    "n_audio_layer": "layers",
    "n_audio_ctx": "positions",
    "n_codebook_size": "codes",
}


def prepare(state: Mapping[str, Tensor]) -> State:
    """Return tensors by the names of the package, also of initializers under those of nodes."""
    found: State = {}
    for key, value in state.items():
        name = _node_name(key)
        turned = name is not None and value.ndim == 2  # nodes multiply from the other side
        found[name or key] = value.T if turned else value
    return found


def _node_name(key: str) -> str | None:
    """Return what a node of the graph is called in the package; None if it is none of a layer."""
    match = re.fullmatch(r"/blocks\.(\d+)/(.*)/([\w.]+)", key)
    if match is None:
        return None
    layer, path, node = match.groups()
    path = path.replace("/", ".").replace("mlp.mlp", "mlp")
    node, _, kept = node.partition(".")  # norms have both in one node
    part = kept or ("weight" if path.endswith("fsmn_block") else dict(NODES).get(node))
    return None if part is None else f"encoder.blocks.{layer}.{path}.{part}"


def configure(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer for upstream tensors and constructor values."""
    second = DOWN + "weight" in state
    network: dict[str, Any] = {
        "name": "whisper",
        **widths_of(state, "encoder.", "encoder.blocks.0.mlp.0.weight"),
        "layers": sizes(state, BLOCK),
    }
    table = state.get("encoder.positional_embedding")
    positions = POSITIONS if table is None else table.shape[0]
    codes = 3 ** state[DOWN + "weight"].shape[0] if second else state[CODEBOOK + "embed"].shape[0]
    found = {**network, "positions": positions, "codes": codes}
    agree(config, {theirs: found[ours] for theirs, ours in GIVEN.items()}, WHERE)
    network["heads"] = heads_of(network["width"], config.get("n_audio_head"), WHERE)
    memory = state.get("encoder.blocks.0.attn.fsmn_block.weight")
    ways: dict[str, Any] = {
        "strides": [2 if second else _first_stride(config), 2],
        "positions": None if second else positions,
        "memory": 0 if memory is None else memory.shape[-1],
        "norm": False,
        "eps": 1e-6 if second and network["layers"] < LAYERS_V3 else 1e-5,
        "unit": not second,
        "whole": False,
    }
    network |= {"windows": WINDOWS, "conventions": ways}
    stride = 320 * ways["strides"][0]
    dim = state[DOWN + "weight"].shape[0] if second else network["width"]
    head: dict[str, Any] = {"name": "fsq", "levels": [3] * dim, "bound": "inner"}
    if not second:
        head = {"name": "vq", "codebook_size": codes, "codebook_update": "ema"}
    return {
        "signal": {"kind": "audio", "channels": 1, "sample_rate": SECOND},
        "dim": dim,
        "encoder": network,
        "quantizer": head,
        "decoder": {"name": "absent", "stride": [stride]},
    }


def _first_stride(config: Mapping[str, Any]) -> int:
    """Return the stride of the first convolution of version 1."""
    if config.get("stride") is not None:
        return int(config["stride"])
    return 2 if "25hz" in str(config.get("name", "")).lower() else 1


def rules(built: Mapping[str, Any]) -> list[Rule]:
    """Return the rules from upstream keys to those of a tokenizer."""
    kept = built["encoder"]["conventions"]["positions"] is not None
    table = r"encoder\.positional_embedding"
    return [
        Rule(r"encoder\.(conv[12])\.(weight|bias)", r"encoder.\1.\2"),
        *layer_rules(OPENAI, r"encoder\.blocks\.", "encoder.stack.layers."),
        Rule(table, "encoder.stack.positions") if kept else drop(table, "unused sinusoids"),
        Rule(r"quantizer\._codebook\.project_down\.(weight|bias)", r"encoder.out.\1"),
        # codes are the centres of themselves where no file has the sums of latents
        Rule(
            r"quantizer\._codebook\.embed",
            "quantizer.{}",
            lambda codes: {"codebook": codes, "cluster_sum": codes},
        ),
    ]


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say why tensors are not of this family, if so."""
    anonymous = [key for key in state if key.startswith("onnx::")]
    if anonymous:
        return (
            f"initializers without a name ({anonymous[0]}), which only the graph can tell apart: "
            "import the file with `tvq import`"
        )
    if DOWN + "weight" not in state and CODEBOOK + "embed" not in state:
        return f"one without {CODEBOOK}embed or {DOWN}weight, its codebook"
    return None


FAMILY = Family(configure, rules, check=check, prepare=prepare)
