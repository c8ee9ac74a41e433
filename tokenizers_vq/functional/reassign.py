"""Codes that nobody chose become copies of codes that many chose, for many codebooks at once.

Reference:
    Zhu et al., Unified Multivariate Gaussian Mixture for Efficient Neural Image Compression, 2022,
    https://arxiv.org/abs/2203.10897, section 3.4 (codebook reassignment);
    Zhang et al., Quantize-then-Rectify, 2025, https://arxiv.org/abs/2507.10547, section 3 (noise).
"""

import torch
from torch import Tensor


def reassign_unused(
    codes: Tensor,
    counts: Tensor,
    *,
    threshold: float,
    share: float = 0.5,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the codebooks after their rarest codes have become copies of their commonest ones.

    A code is unused when it was chosen less than ``threshold`` times as often as the mean code of
    its codebook: relative, so that it means the same at every amount of data. The least used code
    copies the most used one, the next the next, and again from the front where too few are used.

    Args:
        codes: ``(T, K, d)`` float32, T codebooks.
        counts: ``(T, K)`` float32, how often each code was chosen; a codebook without any stays.
        threshold: share of the mean count; 0 leaves all as they are.
        share: at most this share of a codebook changes.
        noise: standard deviation of what is added to a copy, so that it differs from its model.
        generator: the random numbers; in the same state on all ranks.

    Returns:
        ``(T, K, d)``.
    """
    limit = int(share * counts.shape[1])
    unused = counts < threshold * counts.mean(1, keepdim=True)
    order = torch.argsort(counts, dim=1, stable=True)
    target = order[:, :limit]
    used = (~unused).sum(1, keepdim=True).clamp(min=1)
    place = torch.arange(limit, device=codes.device) % used
    source = order.flip(1).gather(1, place)
    width = codes.shape[2]
    fresh = codes.gather(1, source[..., None].expand(-1, -1, width))
    fresh = fresh + noise * torch.randn(fresh.shape, generator=generator).to(fresh)
    kept = codes.gather(1, target[..., None].expand(-1, -1, width))
    fresh = torch.where(unused.gather(1, target)[..., None], fresh, kept)
    return codes.scatter(1, target[..., None].expand(-1, -1, width), fresh)
