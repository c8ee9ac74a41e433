"""Losses that spread a learned codebook, at no cost of codes times codes or codes times tokens.

Reference:
    Shin et al., Translation-equivariant Image Quantizer for Bi-directional Image-Text Generation,
    2021, https://arxiv.org/abs/2112.00384, eq. 2 (orthogonality);
    Yu et al., Language Model Beats Diffusion: Tokenizer is Key to Visual Generation, 2023,
    https://arxiv.org/abs/2310.05737, eq. 5 and 6 (entropies).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.functional.assignment import assignment_sums
from tokenizers_vq.functional.distributed import sum_over_ranks, total_over_ranks
from tokenizers_vq.functional.entropy import entropy


def orthogonality(codes: Tensor) -> Tensor:
    """Return the mean squared cosine between codes, less that of each with itself, ``()``.

    ``sum_ij cos(e_i, e_j)^2 / K^2 - 1 / K``. The sum is the squared norm of ``E E^T``, which is
    that of ``E^T E``: a ``(d, d)`` matrix, so no subset of the codes has to stand for all.

    Args:
        codes: ``(K, d)`` float32.
    """
    unit, count = F.normalize(codes, dim=-1), codes.shape[0]
    return (unit.T @ unit).square().sum() / count**2 - 1 / count


def assignment_entropies(
    x: Tensor, codes: Tensor, valid: Tensor, temperature: float, *, all_ranks: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the mean entropy of soft assignments and the entropy of their mean, ``()`` in nats.

    The assignment of a row is ``softmax_k(-|x - e_k|^2 / temperature)``. Computed in chunks, anew
    in the backward pass, so memory does not grow with tokens times codes.

    Args:
        x: ``(N, d)`` float32.
        codes: ``(K, d)`` float32.
        valid: ``(N,)`` bool; both entropies of no rows are 0.
        temperature: above 0.
        all_ranks: take the mean assignment over the rows of all ranks, which all have to call;
            else over this rank's alone.
    """
    weight = valid.to(x.dtype)
    count = weight.sum()
    # -|x - e|^2 is an inner product with one more channel, up to |x|^2, which all codes share.
    lifted = torch.cat([2 * codes, -codes.square().sum(-1, keepdim=True)], dim=1)
    raised = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    summed, total = assignment_sums(raised, lifted, weight, temperature)
    sample = summed / count.clamp(min=1)
    if all_ranks:
        (count,) = sum_over_ranks(count)
        total = total_over_ranks(total)
    return sample, entropy(total / count.clamp(min=1))
