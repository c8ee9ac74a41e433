"""Soft assignments of rows to a learned codebook, in chunks computed anew on the way back.

The assignment of a row ``x`` is ``p = softmax_k(x . e_k / T)``. The matrix of all of them,
``(N, K)``, never exists: each chunk of rows is reduced at once, and again in the backward pass.

Reference:
    Shi et al., Scalable Image Tokenization with Index Backpropagation Quantization, 2024,
    https://arxiv.org/abs/2412.02692, section 3 (gradients through the soft one-hot).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**22  # scores held at a time, in each of about four buffers of 16 MiB
# Far below what float32 can add to a sum over codes. Products of two such numbers stay above the
# denormal ones, with which a CPU is many times slower.
FLOOR = 2e-19
LOG_FLOOR = -43.0
MIN_ROWS = 64  # per chunk: each writes the gradient of the whole codebook once


def soft_codes(x: Tensor, codebook: Tensor, index: Tensor) -> Tensor:
    """Return ``codebook[index]`` with the gradient of the expectation of the code.

    The value is that of the weights ``onehot(index)``; their gradient is that of
    ``p = softmax(x . e)``, so it reaches ``x`` and every code. The chosen code also gets the
    gradient of the output itself.

    Args:
        x: ``(N, d)`` float32.
        codebook: ``(K, d)`` float32.
        index: ``(N,)`` int64.

    Returns:
        ``(N, d)`` float32.
    """
    out: Tensor = _SoftCodes.apply(x, codebook, index)
    return out


def assignment_sums(
    x: Tensor, codebook: Tensor, weight: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return weighted sums over rows: of the assignments' entropies, and of the assignments.

    Args:
        x: ``(N, d)`` float32.
        codebook: ``(K, d)`` float32.
        weight: ``(N,)`` float32, no gradient.
        temperature: T of the softmax.

    Returns:
        ``()`` in nats and ``(K,)``, with gradients to ``x`` and ``codebook``.
    """
    sums: tuple[Tensor, Tensor] = _AssignmentSums.apply(x / temperature, codebook, weight)
    return sums


class _SoftCodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, codebook: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(x, codebook, index)
        return codebook[index]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, codebook, index = ctx.saved_tensors
        to_x = torch.empty_like(x)
        to_codes = torch.zeros_like(codebook).index_add_(0, index, grad)
        for rows in _chunks(x, codebook):
            p = torch.softmax(x[rows] @ codebook.T, dim=1).clamp_(min=FLOOR)
            # softmax backward: p * (g - sum p g), with g the gradient of the weights
            to_scores = _softmax_backward(p, grad[rows] @ codebook.T)
            to_x[rows] = to_scores @ codebook
            to_codes.addmm_(to_scores.T, x[rows])
        return to_x, to_codes, None


class _AssignmentSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, codebook: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, codebook, weight)
        entropy, total = x.new_zeros(()), x.new_zeros(codebook.shape[0])
        for rows in _chunks(x, codebook):
            log_p = _log_softmax(x[rows] @ codebook.T)
            p = log_p.exp()
            entropy -= (weight[rows] * log_p.mul_(p).sum(1)).sum()
            total += weight[rows] @ p
        return entropy, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_entropy: Tensor, to_total: Tensor) -> tuple[Tensor, Tensor, None]:
        x, codebook, weight = ctx.saved_tensors
        to_x, to_codes = torch.empty_like(x), torch.zeros_like(codebook)
        for rows in _chunks(x, codebook):
            log_p = _log_softmax(x[rows] @ codebook.T)
            p = log_p.exp()
            # d/dp of -sum p log p is -log p; its constant drops out of the softmax backward
            to_scores = _softmax_backward(p, log_p.mul_(-to_entropy).add_(to_total))
            to_scores *= weight[rows, None]
            to_x[rows] = to_scores @ codebook
            to_codes.addmm_(to_scores.T, x[rows])
        return to_x, to_codes, None


def _log_softmax(scores: Tensor) -> Tensor:
    """Return ``log_softmax`` over the codes, not below the floor."""
    return torch.log_softmax(scores, dim=1).clamp_(min=LOG_FLOOR)


def _softmax_backward(p: Tensor, grad: Tensor) -> Tensor:
    """Return ``p * (grad - sum_k p grad)``, ``(n, K)``, in the memory of ``grad``."""
    along = (p * grad).sum(1, keepdim=True)
    return grad.sub_(along).mul_(p)


def _chunks(x: Tensor, codebook: Tensor) -> Iterator[slice]:
    """Yield slices of the rows of ``x``; a graph, where their number may vary, has one."""
    if torch.compiler.is_compiling():
        yield slice(None)
        return
    rows = max(MIN_ROWS, CHUNK // codebook.shape[0])
    for start in range(0, x.shape[0], rows):
        yield slice(start, start + rows)
