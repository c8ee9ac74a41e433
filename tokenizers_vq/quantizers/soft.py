"""Probabilities instead of indices: codes that are expected, targets that know near misses.

Reference:
    Ning et al., All in Tokens: Unifying Output Space of Visual Tasks via Soft Token, 2023,
    https://arxiv.org/abs/2301.02229, section 3 (soft tokens);
    Lee et al., Autoregressive Image Generation using Residual Quantization, 2022,
    https://arxiv.org/abs/2203.01941, section 3 (soft labels and stochastic sampling).
    Differs from the first: several codebooks, taken as independent of each other.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import float32_island, is_finite, zero_unless
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


@torch.no_grad()
def soft_targets(
    head: Quantizer,
    z: Tensor,
    temperature: float,
    *,
    sample: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Return tokens and, for each codebook, how likely every code is to stand for the latent.

    ``p(k) = softmax_k(-|r - e_k|^2 / temperature)``, where r is what the stages before left over.
    A language model that learns these learns which codes are nearly as good as the chosen one.

    Args:
        head: a head that searches a table, or a stack or group of such.
        z: ``(B, *grid, D)``, floating point.
        temperature: above 0; towards 0 the targets become one-hot.
        sample: draw each token from its distribution instead of taking the nearest code. Later
            stages of a residual stack quantize what the drawn codes leave over.
        generator: of the draws; None for torch's global one.

    Returns:
        indices ``(B, *grid, K)`` int64 and K tensors ``(B, *grid, size)`` float32 that sum to 1.

    Raises:
        ConfigError: a head, or a part of it, does not search a table, or the temperature is not
            above 0.
        ShapeError: ``z`` has another shape or dtype.
    """
    if not temperature > 0:
        raise ConfigError(
            f"soft_targets: expected a temperature above 0; got {temperature}. Use encode for "
            "hard targets."
        )
    if not isinstance(head, RowQuantizer):
        raise ConfigError(
            f"soft_targets: expected a head that searches a table; got {type(head).__name__}. "
            "Use its indices."
        )

    def choose(distances: Tensor) -> tuple[Tensor, Tensor]:
        probs = torch.softmax(-distances / temperature, dim=1)
        if not sample:
            return distances.argmin(1), probs
        place = probs.device if generator is None else generator.device
        drawn = torch.multinomial(probs.to(place), 1, generator=generator)[:, 0]
        return drawn.to(probs.device), probs

    head._check(z, None)
    with float32_island(z.device):
        rows = z.reshape(-1, head.dim).float()
        rows = zero_unless(is_finite(rows), rows)
        indices, probs = head.soft_rows(rows, choose)
    grid = z.shape[:-1]
    return indices.reshape(*grid, head.num_codebooks), [p.reshape(*grid, p.shape[1]) for p in probs]


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
