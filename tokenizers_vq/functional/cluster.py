"""Clustering of a trained codebook into smaller ones, nested, so that index maps compose.

Reference:
    Linde, Buzo and Gray, An Algorithm for Vector Quantizer Design, 1980,
    https://doi.org/10.1109/TCOM.1980.1094577 (the iteration, here on codes weighted by use);
    Mao et al., Extreme Image Compression using Fine-tuned VQGANs, 2023,
    https://arxiv.org/abs/2307.08265 (k-means of a trained codebook, one for each bit rate).
    Differs from the latter: codes weigh as much as they are used, and sizes are nested.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.ops import nearest_code

UNUSED = 1e-3  # weight of a code that was never used, in mean weights: it still finds a cluster


@dataclass(frozen=True)
class Clusters:
    """A smaller codebook.

    Attributes:
        centroids: ``(size, d)`` float32.
        table: ``(K,)`` int64, the cluster of each code of the original codebook.
        weights: ``(size,)`` float32, the summed weight of the codes of each cluster.
    """

    centroids: Tensor
    table: Tensor
    weights: Tensor


@torch.no_grad()
def cluster_codebook(
    codes: Tensor,
    sizes: Sequence[int],
    weights: Tensor | None = None,
    *,
    cosine: bool = False,
    iterations: int = 20,
    generator: torch.Generator | None = None,
) -> list[Clusters]:
    """Return a smaller codebook for each of ``sizes``, each made from the one before.

    Two codes that share a cluster share one at every smaller size too. Each centroid is the
    weighted mean of its codes.

    Args:
        codes: ``(K, d)``.
        sizes: falling numbers of codes, the first below K, the last at least 1.
        weights: ``(K,)``, how often each code is used; default: all alike.
        cosine: cluster directions; centroids have unit length.
        iterations: at most this many Lloyd iterations per size, at least 1.
        generator: the random numbers, on the CPU; default: seed 0.

    Raises:
        ConfigError: the sizes do not fall from K, or the weights are not K numbers of at least 0.
    """
    count = codes.shape[0]
    steps = [count, *sizes]
    if not sizes or sizes[-1] < 1 or any(b >= a for a, b in pairwise(steps)):
        raise ConfigError(
            f"cluster_codebook: expected sizes that fall from {count - 1} to 1; got {list(sizes)}. "
            "Order them, largest first."
        )
    if weights is not None and (weights.shape != (count,) or bool((weights < 0).any())):
        raise ConfigError(
            f"cluster_codebook: expected {count} weights of at least 0; got "
            f"{tuple(weights.shape)}. Give one per code."
        )
    generator = generator or torch.Generator().manual_seed(0)
    points = F.normalize(codes.float(), dim=-1) if cosine else codes.float()
    mass = torch.ones(count) if weights is None else weights.float().cpu()
    mass = mass.to(points.device)
    table = torch.arange(count, device=points.device)
    levels: list[Clusters] = []
    for size in sizes:
        centroids, step = _lloyd(points, _positive(mass), size, cosine, iterations, generator)
        mass = mass.new_zeros(size).index_add_(0, step, mass)
        points, table = centroids, step[table]
        levels.append(Clusters(centroids, table, mass))
    return levels


def _positive(mass: Tensor) -> Tensor:
    """Return weights above zero that sum to their number."""
    mass = mass / mass.mean() if bool(mass.sum() > 0) else torch.ones_like(mass)
    return mass + UNUSED


def _lloyd(
    x: Tensor, mass: Tensor, size: int, cosine: bool, iterations: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return centroids ``(size, d)`` and the cluster of each row of ``x (K, d)``."""
    picks = torch.multinomial(mass.cpu(), size, generator=generator).to(x.device)
    centroids, before = x[picks], None
    for _ in range(iterations):
        error, index = nearest_code(x, centroids)
        index = _fill_empty(index, mass * error, size)
        if before is not None and torch.equal(index, before):
            break
        centroids, before = _means(x, mass, index, size, cosine), index
    return centroids, index


def _means(x: Tensor, mass: Tensor, index: Tensor, size: int, cosine: bool) -> Tensor:
    sums = x.new_zeros(size, x.shape[1]).index_add_(0, index, x * mass[:, None])
    if cosine:
        return F.normalize(sums, dim=-1)
    return sums / mass.new_zeros(size).index_add_(0, index, mass)[:, None]


def _fill_empty(index: Tensor, error: Tensor, size: int) -> Tensor:
    """Give each empty cluster the code with the largest weighted error that can be spared."""
    members = torch.bincount(index, minlength=size).tolist()
    empty = [cluster for cluster, count in enumerate(members) if not count]
    if not empty:
        return index
    found = index.tolist()
    for row in torch.argsort(error, descending=True, stable=True).tolist():
        if empty and members[found[row]] > 1:
            members[found[row]] -= 1
            found[row] = empty.pop()
    return torch.tensor(found, device=index.device)
