"""Decoding of probabilities: the code that is expected, instead of the one that is likeliest.

Reference:
    Ning et al., All in Tokens: Unifying Output Space of Visual Tasks via Soft Token, 2023,
    https://arxiv.org/abs/2301.02229, section 3 (soft tokens).
    Differs from the paper: several codebooks, taken as independent of each other.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import float32_island
from tokenizers_vq.quantizers.rows import RowQuantizer

MAX_SIZE = 2**18  # codes per codebook: all of them are decoded, 256 MiB at 256 channels


def expected_latents(head: Quantizer, probs: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the mean of ``head.decode`` over indices drawn from ``probs``.

    With one-hot probabilities it is the decoded index. Gradients flow to ``probs`` and to codes.

    Args:
        head: any quantizer whose latents are sums (or concatenations) over its codebooks.
        probs: ``(B, *grid, size)`` for one codebook; for K a sequence of K such, whose grids are
            equal. They are not normalised here: each row has to sum to 1.

    Returns:
        ``(B, *grid, D)`` float32.

    Raises:
        ShapeError: number, shapes or dtypes are not those of the codebooks.
        ConfigError: a codebook has more than ``MAX_SIZE`` codes, or the code of one index depends
            on the others or on its place.
    """
    summed = _summed(head)
    parts = _checked([probs] if isinstance(probs, Tensor) else list(probs), head.codebook_sizes)
    grid = parts[0].shape[:-1]
    with float32_island(parts[0].device):
        rows = [p.reshape(-1, p.shape[-1]).float() for p in parts]
        out = _expected_rows(summed, rows)
    return out.reshape(*grid, head.dim)


def _expected_rows(head: RowQuantizer, probs: list[Tensor]) -> Tensor:
    """Return ``(N, D)`` of ``(N, size)`` each.

    Latents are ``f(0) + sum_k (f_k(i_k) - f(0))``, where ``f_k`` has all other indices at 0.
    """
    count = len(probs)
    start = torch.zeros(1, count, dtype=torch.int64, device=probs[0].device)
    out = torch.zeros((), device=start.device)
    for k, p in enumerate(probs):
        indices = start.repeat(p.shape[1], 1)
        indices[:, k] = torch.arange(p.shape[1], device=start.device)
        out = out + p @ head.decode_rows(indices)
    return out if count == 1 else out - (count - 1) * head.decode_rows(start)


def _summed(head: Quantizer) -> RowQuantizer:
    """Return the head if its latents are sums of tables over its codebooks; raise if not."""
    name = type(head).__name__
    additive = all(part.additive for part in head.modules() if isinstance(part, Quantizer))
    if not isinstance(head, RowQuantizer) or (head.num_codebooks > 1 and not additive):
        raise ConfigError(
            f"decode_soft: expected a head whose latents are sums over its codebooks; got {name}, "
            "where a code depends on others or on its place. Decode indices instead."
        )
    if max(head.codebook_sizes) > MAX_SIZE:
        raise ConfigError(
            f"decode_soft: expected codebooks of at most {MAX_SIZE} codes; got {name} with "
            f"{max(head.codebook_sizes)}. Decode indices instead."
        )
    return head


def _checked(probs: list[Tensor], sizes: tuple[int, ...]) -> list[Tensor]:
    """Return the probabilities of each codebook if their shapes and dtypes fit."""
    if len(probs) != len(sizes):
        raise ShapeError(
            f"decode_soft: expected probabilities for {len(sizes)} codebooks; got {len(probs)}. "
            "Give a list with one tensor per codebook."
        )
    for k, (p, size) in enumerate(zip(probs, sizes, strict=True)):
        shape = (*probs[0].shape[:-1], size)
        if p.ndim < 2 or p.shape != shape or not p.is_floating_point():
            raise ShapeError(
                f"decode_soft: expected floating probabilities of shape {shape} for codebook {k}; "
                f"got {p.dtype} {tuple(p.shape)}. The codes go last."
            )
    return probs
