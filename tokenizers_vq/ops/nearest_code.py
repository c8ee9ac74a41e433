"""Nearest codeword as an operation of torch: compiled where possible, the same answers everywhere.

The ops ``tokenizers_vq::nearest_code``, ``largest_product``, ``residual_codes`` and ``code_stats``
have a compiled CPU and a CUDA form in ``kernels/nearest_code/`` and everywhere else, or when
nothing is compiled, the torch form of ``functional/nearest.py``. All filter by rounded scores and
decide in float64, so they agree bit by bit. For the largest cosine normalise both arguments of
``nearest_code``: between vectors of one length, nearest and most similar are the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.ops import library, rules

rules.register()
KERNELS = library.load()
NO_CUDA = library.load_cuda()  # why not; empty if CUDA tensors have a kernel


def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distance ``(N,)`` float32 and index ``(N,)`` int64 of the nearest code.

    Exact: the index is that of the smallest ``sum (x - c)^2`` in float64 over the inputs as
    float32, the lowest one on ties. A code that is not finite is never chosen; a row that is not
    finite gets index 0 and an infinite distance. Gradients flow through the distance.

    Args:
        x: ``(N, d)``, any number of rows, or ``(G, N, d)``: G groups at once.
        codebook: ``(K, d)``, K and d at least 1, or ``(G, K, d)``; on the device of ``x``.

    Returns:
        With groups, both are ``(G, N)``.

    Raises:
        ShapeError: wrong rank, width, dtype or device, or an empty codebook.
    """
    _check("nearest_code", x, codebook)
    distance, index = torch.ops.tokenizers_vq.nearest_code(x.float(), codebook.float())
    return distance, index


def largest_product(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest inner product ``(N,)`` float32 with a code, and its index ``(N,)`` int64.

    Exact as ``nearest_code`` is, the lowest index on ties. A code that is not finite is never
    chosen; a row that is not finite gets index 0 and minus infinity. Gradients flow through the
    product.

    Args:
        x: ``(N, d)``, any number of rows, or ``(G, N, d)``: G groups at once.
        codebook: ``(K, d)``, K and d at least 1, or ``(G, K, d)``; on the device of ``x``.

    Returns:
        With groups, both are ``(G, N)``.

    Raises:
        ShapeError: wrong rank, width, dtype or device, or an empty codebook.
    """
    _check("largest_product", x, codebook)
    product, index = torch.ops.tokenizers_vq.largest_product(x.float(), codebook.float())
    return product, index


def residual_codes(x: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Return the indices ``(N, M)`` int64 of a stack of codebooks, searched one after the other.

    Each codebook is searched for the code nearest to what the float32 sum of the codes before it
    leaves of ``x``.

    Args:
        x: ``(N, d)``, any number of rows.
        codebooks: M tables ``(K, d)`` of at least one code; K may differ.

    Raises:
        ShapeError: no codebook, or one that ``nearest_code`` would refuse.

    Reference:
        Zeghidour et al., SoundStream, 2021, https://arxiv.org/abs/2107.03312, algorithm 1.
    """
    if len(codebooks) == 0:  # also of a stack (M, K, d) in one tensor
        raise ShapeError("residual_codes: expected at least one codebook; got none. Give one.")
    for codebook in codebooks:
        if codebook.ndim == 3:
            _refuse_shapes("residual_codes", x, codebook)
        _check("residual_codes", x, codebook)
    tables = [codebook.detach().float() for codebook in codebooks]
    index: Tensor = torch.ops.tokenizers_vq.residual_codes(x.detach().float(), tables)
    return index


def code_stats(x: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return how many rows each code got ``(K,)`` and their sum ``(K, d)``, both float32.

    Each sum adds its rows in their order, so the result does not depend on the number of threads.

    Args:
        x: ``(N, d)``, any dtype of real numbers.
        index: ``(N,)`` int64 in ``0..size - 1``, on the device of ``x``.
        size: number of codes K.

    Raises:
        ShapeError: wrong rank, dtype, device or number of indices.
        RuntimeError: an index outside; on a GPU torch raises it with a later call.
    """
    if x.ndim != 2 or index.shape != x.shape[:1] or index.dtype != torch.int64:
        raise ShapeError(
            f"code_stats: expected x (N, d) and int64 index (N,); got {tuple(x.shape)} and "
            f"{index.dtype} {tuple(index.shape)}. Flatten both first."
        )
    if x.device != index.device:
        raise ShapeError(
            f"code_stats: expected one device; got {x.device} and {index.device}. "
            "Move one to the other."
        )
    if index.is_cuda:  # the kernel leaves them out; to ask the device here would be to wait for it
        _refuse_outside(index, size)
    counts, sums = torch.ops.tokenizers_vq.code_stats(x.detach().float(), index, size)
    return counts, sums


def _refuse_outside(index: Tensor, size: int) -> None:
    inside = ((index >= 0) & (index < size)).all()
    torch._assert_async(inside, f"code_stats: expected indices in 0..{size - 1}")


def _check(where: str, x: Tensor, codebook: Tensor) -> None:
    ranks = x.ndim == codebook.ndim and x.ndim in (2, 3)
    if not ranks or x.shape[-1] != codebook.shape[-1] or x.shape[:-2] != codebook.shape[:-2]:
        _refuse_shapes(where, x, codebook)
    got = f"{tuple(x.shape)} and {tuple(codebook.shape)}"
    if codebook.shape[-2] < 1 or codebook.shape[-1] < 1:
        raise ShapeError(f"{where}: expected K >= 1 and d >= 1; got {got}. Give at least one code.")
    if not (x.is_floating_point() and codebook.is_floating_point()):
        raise ShapeError(
            f"{where}: expected real numbers; got {x.dtype} and {codebook.dtype}. Call .float()."
        )
    if x.device != codebook.device:
        raise ShapeError(
            f"{where}: expected one device; got {x.device} and {codebook.device}. "
            "Move one to the other."
        )


def _refuse_shapes(where: str, x: Tensor, codebook: Tensor) -> None:
    groups = "" if where == "residual_codes" else ", or (G, N, d) and (G, K, d)"
    raise ShapeError(
        f"{where}: expected x (N, d) and codebook (K, d){groups}; got {tuple(x.shape)} and "
        f"{tuple(codebook.shape)}. Flatten the grid and give both the same width."
    )
