"""The tensors of an S3 tokenizer's ONNX graph, by the names that ``from_published`` knows.

Half of the graph's initializers have a number for a name (``onnx::MatMul_2536``), so it is the
nodes that use them that tell what they are: ``/blocks.0/attn/query/MatMul``. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tokenizers_vq.errors import CheckpointError, MissingExtraError
from tokenizers_vq.published.keys import State

LAYERS = "/blocks."  # how the names of nodes inside a layer begin
CODEBOOK = "_codebook/Pow_1"  # how the name of the node ends that squares the codes
PARTS = ("", "weight", "bias")  # inputs of convolutions and norms


class Use(NamedTuple):
    """An initializer as one input of one node.

    Attributes:
        name: of the initializer.
        node: name of the node.
        op: what the node computes.
        slot: number of the input.
        value: the tensor.
    """

    name: str
    node: str
    op: str
    slot: int
    value: Tensor


def read_graph(path: Path) -> State:
    """Return the tensors of an S3 tokenizer's graph.

    Raises:
        MissingExtraError: the package that reads graphs is not installed.
        CheckpointError: it is another graph.
    """
    found: State = {}
    convolutions: list[str] = []
    for use in _uses(path):
        if use.op == "Conv" and not use.node.startswith(LAYERS):
            if use.node not in convolutions:
                convolutions.append(use.node)
            place = convolutions.index(use.node) + 1
            found[f"encoder.conv{place}.{PARTS[use.slot]}"] = use.value
        elif (key := _key(use)) is not None:
            turned = key.startswith("quantizer.") and use.value.ndim == 2
            found[key] = use.value.T if turned else use.value
    if not any(key.startswith(LAYERS) for key in found):
        raise CheckpointError(
            f"import: expected the graph of an S3 tokenizer, with nodes such as {LAYERS}0/attn"
            f"/query/MatMul; got {path}. Other graphs are not read: save the weights."
        )
    return found


def _key(use: Use) -> str | None:
    """Return what a tensor is called; None for what the tokenizer has no use for."""
    codebook = "quantizer._codebook."
    if use.node.startswith(LAYERS):
        norm = use.op == "LayerNormalization"
        part = f".{PARTS[use.slot]}" if norm else ""
        return use.node + part
    if use.name.endswith("positional_embedding"):
        return "encoder.positional_embedding"
    if use.node.endswith(CODEBOOK):
        return codebook + "embed"
    if use.name == "quantizer.project_in.bias":
        return codebook + "project_down.bias"
    # version 1 also multiplies by its codes, but only version 2 by a matrix of few columns
    if use.op == "MatMul" and use.value.ndim == 2 and use.value.shape[1] < use.value.shape[0]:
        return codebook + "project_down.weight"
    return None


def _uses(path: Path) -> Iterator[Use]:
    """Yield the tensors of floats with at least one axis, by the nodes that use them, in order."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx.numpy_helper import to_array
    except ImportError as error:
        raise MissingExtraError(
            "import: expected the package onnx, which reads graphs; got none. Run "
            "pip install 'tokenizers-vq[onnx]'."
        ) from error
    try:
        graph: Any = onnx.load(path).graph
    except DecodeError as error:
        raise ValueError("no graph") from error
    kept = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name in kept:
                value = torch.from_numpy(to_array(kept[name]).copy())
                if value.is_floating_point() and value.ndim:
                    yield Use(name, node.name, node.op_type, slot, value)
