"""What torch has to know about the ops: schemas, torch forms, shapes, gradients, autocast."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.functional import nearest

SEARCH = "(Tensor x, Tensor codebook) -> (Tensor {}, Tensor index)"  # floats come first
SCHEMAS = {
    "nearest_code": SEARCH.format("sqdist"),
    "largest_product": SEARCH.format("product"),
    "residual_codes": "(Tensor x, Tensor[] codebooks) -> Tensor",
    "nearest_codes": "(Tensor x, Tensor codebook, int count) -> Tensor",
    "code_stats": "(Tensor x, Tensor index, int size) -> (Tensor counts, Tensor sums)",
}


def register() -> None:
    """Declare the ops to torch, once per process."""
    for name, schema in SCHEMAS.items():
        op = f"tokenizers_vq::{name}"
        torch.library.define(op, schema)
        torch.library.impl(op, "CompositeExplicitAutograd", FORMS[name])
        torch.library.register_fake(op, SHAPES[name])
    for name, gradients in GRADIENTS.items():
        op = f"tokenizers_vq::{name}"
        torch.library.register_autograd(op, gradients, setup_context=_remember)
        for device in ("cpu", "cuda"):  # half precision is searched in float32, under autocast too
            torch.library.register_autocast(op, device, torch.float32)


def _nearest(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    return nearest.nearest_code(x, codebook)


def _product(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    return nearest.largest_product(x, codebook)


def _residual(x: Tensor, codebooks: list[Tensor]) -> Tensor:
    return nearest.residual_codes(x, codebooks)


def _several(x: Tensor, codebook: Tensor, count: int) -> Tensor:
    return nearest.nearest_codes(x, codebook, count)


def _stats(x: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return nearest.code_stats(x, index, size)


def _search_shapes(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[:-1]), x.new_empty(x.shape[:-1], dtype=torch.int64)


def _residual_shapes(x: Tensor, codebooks: list[Tensor]) -> Tensor:
    return x.new_empty(x.shape[0], len(codebooks), dtype=torch.int64)


def _several_shapes(x: Tensor, codebook: Tensor, count: int) -> Tensor:
    return x.new_empty(x.shape[0], min(count, codebook.shape[0]), dtype=torch.int64)


def _stats_shapes(x: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(size), x.new_empty(size, x.shape[1])


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _of_distance(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Differentiate ``|x - c_i|^2``: ``2 (x - c_i)`` for x, the negative summed per code for c."""
    x, codebook, index = ctx.saved_tensors
    to_x = 2 * grad[..., None] * (x - _chosen(codebook, index))
    to_codes = _per_code(codebook, index, -to_x) if ctx.needs_input_grad[1] else None
    return to_x if ctx.needs_input_grad[0] else None, to_codes


def _of_product(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Differentiate ``x . c_i``: ``c_i`` for x, ``x`` summed per code for c."""
    x, codebook, index = ctx.saved_tensors
    to_x = grad[..., None] * _chosen(codebook, index) if ctx.needs_input_grad[0] else None
    from_x = grad[..., None] * x
    return to_x, _per_code(codebook, index, from_x) if ctx.needs_input_grad[1] else None


def _place(codebook: Tensor, index: Tensor) -> Tensor:
    """Return ``(G * N,)``: rows of the codebooks of all groups, one after the other."""
    if codebook.ndim == 2:
        return index
    starts = torch.arange(codebook.shape[0], device=index.device) * codebook.shape[1]
    return (index + starts[:, None]).flatten()


def _chosen(codebook: Tensor, index: Tensor) -> Tensor:
    rows = codebook.flatten(0, -2)[_place(codebook, index)]
    return rows.reshape(*index.shape, codebook.shape[-1])


def _per_code(codebook: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    sums = torch.zeros_like(codebook, memory_format=torch.contiguous_format).flatten(0, -2)
    sums = sums.index_add(0, _place(codebook, index), rows.flatten(0, -2))
    return sums.view(codebook.shape)


FORMS: dict[str, Callable[..., object]] = {
    "nearest_code": _nearest,
    "largest_product": _product,
    "residual_codes": _residual,
    "nearest_codes": _several,
    "code_stats": _stats,
}
SHAPES: dict[str, Callable[..., object]] = {
    "nearest_code": _search_shapes,
    "largest_product": _search_shapes,
    "residual_codes": _residual_shapes,
    "nearest_codes": _several_shapes,
    "code_stats": _stats_shapes,
}
GRADIENTS: dict[str, Callable[..., object]] = {
    "nearest_code": _of_distance,
    "largest_product": _of_product,
}
