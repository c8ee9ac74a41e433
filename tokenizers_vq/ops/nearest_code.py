"""Nearest codeword as an operation of torch: compiled where possible, the same answers everywhere.

The op ``tokenizers_vq::nearest_code`` has a compiled CPU form in ``kernels/nearest_code/`` and, for
every other device or when nothing is compiled, the torch form of ``functional/nearest.py``. Both
filter by rounded scores and decide in float64, so they agree bit by bit in the index. For the
largest cosine or inner product normalise both arguments first: the order is then the same.
"""

from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.functional import nearest
from tokenizers_vq.ops import library

torch.library.define(
    "tokenizers_vq::nearest_code", "(Tensor x, Tensor codebook) -> (Tensor sqdist, Tensor index)"
)
torch.library.define(
    "tokenizers_vq::code_stats",
    "(Tensor x, Tensor index, int size) -> (Tensor counts, Tensor sums)",
)
KERNELS = library.load()


def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distance ``(N,)`` float32 and index ``(N,)`` int64 of the nearest code.

    Exact: the index is that of the smallest ``sum (x - c)^2`` in float64 over the inputs as
    float32, the lowest one on ties. A code that is not finite is never chosen; a row that is not
    finite gets index 0 and an infinite distance. Gradients flow through the distance.

    Args:
        x: ``(N, d)``, any number of rows.
        codebook: ``(K, d)``, K and d at least 1, on the device of ``x``.

    Raises:
        ShapeError: wrong rank, width, dtype or device, or an empty codebook.
    """
    _check(x, codebook)
    distance, index = torch.ops.tokenizers_vq.nearest_code(x.float(), codebook.float())
    return distance, index


def code_stats(x: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return how many rows each code got ``(K,)`` and their sum ``(K, d)``, both float32.

    Each sum adds its rows in their order, so the result does not depend on the number of threads.

    Args:
        x: ``(N, d)``, any dtype of real numbers.
        index: ``(N,)`` int64 in ``0..size - 1``.
        size: number of codes K.

    Raises:
        ShapeError: wrong rank, dtype or number of indices.
    """
    if x.ndim != 2 or index.shape != x.shape[:1] or index.dtype != torch.int64:
        raise ShapeError(
            f"code_stats: expected x (N, d) and int64 index (N,); got {tuple(x.shape)} and "
            f"{index.dtype} {tuple(index.shape)}. Flatten both first."
        )
    counts, sums = torch.ops.tokenizers_vq.code_stats(x.detach().float(), index, size)
    return counts, sums


def _check(x: Tensor, codebook: Tensor) -> None:
    got = f"{tuple(x.shape)} and {tuple(codebook.shape)}"
    if x.ndim != 2 or codebook.ndim != 2 or x.shape[1] != codebook.shape[1]:
        raise ShapeError(
            f"nearest_code: expected x (N, d) and codebook (K, d); got {got}. "
            "Flatten the grid and give both the same width."
        )
    if codebook.shape[0] < 1 or codebook.shape[1] < 1:
        raise ShapeError(
            f"nearest_code: expected K >= 1 and d >= 1; got {got}. Give at least one code."
        )
    if not (x.is_floating_point() and codebook.is_floating_point()):
        raise ShapeError(
            f"nearest_code: expected real numbers; got {x.dtype} and {codebook.dtype}. "
            "Call .float()."
        )
    if x.device != codebook.device:
        raise ShapeError(
            f"nearest_code: expected one device; got {x.device} and {codebook.device}. "
            "Move one to the other."
        )


@torch.library.impl("tokenizers_vq::nearest_code", "CompositeExplicitAutograd")
def _nearest_in_torch(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    return nearest.nearest_code(x, codebook)


@torch.library.impl("tokenizers_vq::code_stats", "CompositeExplicitAutograd")
def _stats_in_torch(x: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return nearest.code_stats(x, index, size)


def _nearest_shapes(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0]), x.new_empty(x.shape[0], dtype=torch.int64)


def _stats_shapes(x: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(size), x.new_empty(size, x.shape[1])


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _gradients(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Differentiate ``|x - c_i|^2``: ``2 (x - c_i)`` for x, the negative summed per code for c."""
    x, codebook, index = ctx.saved_tensors
    to_x = 2 * grad[:, None] * (x - codebook[index])
    to_codes = None
    if ctx.needs_input_grad[1]:
        to_codes = torch.zeros_like(codebook).index_add(0, index, -to_x)
    return to_x if ctx.needs_input_grad[0] else None, to_codes


torch.library.register_fake("tokenizers_vq::nearest_code", _nearest_shapes)
torch.library.register_fake("tokenizers_vq::code_stats", _stats_shapes)
torch.library.register_autograd("tokenizers_vq::nearest_code", _gradients, setup_context=_remember)
for _device in ("cpu", "cuda"):  # half precision is searched in float32, also under autocast
    torch.library.register_autocast("tokenizers_vq::nearest_code", _device, torch.float32)
