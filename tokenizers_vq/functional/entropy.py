"""Entropies of soft assignments to binary codes, in nats.

The soft assignment of a latent ``z`` to the codes ``{-s, +s}^d`` is a softmax over
``2 t z . c`` with inverse temperature ``t``. The affinity is a sum over bits, so the assignment is
a product of independent bits with ``P(bit i is +) = sigmoid(4 s t z_i)``. All functions take those
logits ``(N, d)``.

Reference:
    Yu et al., Language Model Beats Diffusion: Tokenizer is Key to Visual Generation, 2023,
    https://arxiv.org/abs/2310.05737, eq. 5 and 6 (the loss);
    Zhao et al., Image and Video Tokenization with Binary Spherical Quantization, 2024,
    https://arxiv.org/abs/2406.07548, section 3.2 (the factorised bound).
    Differs from both: the entropy of the mean assignment is exact up to ``EXACT_BITS`` bits.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.functional.distributed import sum_over_ranks, total_over_ranks

EXACT_BITS = 24  # 2**24 probabilities are 64 MiB; one more bit doubles memory and time


def sample_entropy(logits: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over valid rows of the entropy of each row's assignment, ``()`` in nats.

    It is exact for every number of bits: the entropy of independent bits is the sum of theirs.

    Args:
        logits: ``(N, d)`` float32.
        valid: ``(N,)`` bool; the mean of no rows is 0.
    """
    bits = F.softplus(logits) - logits * torch.sigmoid(logits)
    return weighted_mean(bits.sum(-1), valid)


def batch_entropy(logits: Tensor, valid: Tensor, *, all_ranks: bool = True) -> tuple[Tensor, bool]:
    """Return the entropy of the assignment averaged over the valid rows of all ranks, in nats.

    Up to ``EXACT_BITS`` bits it is the entropy of the joint distribution over all ``2**d`` codes.
    Beyond, it is the sum of the entropies of the averaged bits, which is an upper bound.

    Args:
        logits: ``(N, d)`` float32.
        valid: ``(N,)`` bool; the entropy of no rows is 0.
        all_ranks: average over the rows of all ranks, which all have to call; else over this
            rank's alone, without communication.

    Returns:
        The entropy ``()`` with gradient, and whether it is the exact one.
    """
    weight = valid.to(logits.dtype)
    exact = logits.shape[-1] <= EXACT_BITS
    count = weight.sum()
    if exact:
        total = joint_probabilities(logits, weight)
    else:
        total = (torch.sigmoid(logits) * weight[:, None]).sum(0)
    if all_ranks:
        (count,) = sum_over_ranks(count)
        total = total_over_ranks(total)
    mean = total / count.clamp(min=1)
    return entropy(mean if exact else torch.cat([mean, 1 - mean])), exact


def joint_probabilities(logits: Tensor, weight: Tensor) -> Tensor:
    """Return ``sum_n weight_n p(code | row n)`` for all ``2**d`` codes, bit 0 fastest.

    The bits are split in two halves. A code's probability is the product of its halves', so the
    sum over rows is one matrix product of ``(2**(d - d/2), N)`` and ``(N, 2**(d/2))``: no
    ``N x 2**d`` matrix exists.

    Args:
        logits: ``(N, d)`` float32.
        weight: ``(N,)`` float32.

    Returns:
        ``(2**d,)`` float32.
    """
    half = logits.shape[-1] // 2
    low = _code_probabilities(logits[:, :half])
    high = _code_probabilities(logits[:, half:])
    return ((high * weight[:, None]).T @ low).flatten()


def entropy(p: Tensor) -> Tensor:
    """Return ``-sum p log p`` in nats, with a finite gradient where ``p`` is 0."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum()


def weighted_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of ``x (N,)`` over the rows where ``valid (N,)``; 0 where there are none."""
    weight = valid.to(x.dtype)
    return (x * weight).sum() / weight.sum().clamp(min=1)


def _code_probabilities(logits: Tensor) -> Tensor:
    """Return ``(N, 2**d)``: the probability of each code of ``d`` independent bits."""
    count = logits.shape[-1]
    codes = torch.arange(2**count, device=logits.device)
    bits = ((codes[:, None] >> torch.arange(count, device=logits.device)) & 1).to(logits.dtype)
    # All terms are negative: none cancels another, however large the logits. One product and one
    # result, because each is as large as what the whole entropy needs otherwise.
    chances = torch.cat([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=1)
    logs = chances @ torch.cat([bits, 1 - bits], dim=1).T
    # The floor is far below what float32 can add to a mean, and keeps the product of two such
    # numbers above the denormal ones, with which a CPU is up to ten times slower.
    return logs.clamp(min=-43.0).exp_()
