"""How a codebook follows its data: k-means, moving averages, restart of dead codes.

Pure functions: they take tensors and return new ones. ``all_reduce`` is called with float32
tensors and returns their sums over ranks; with it, every rank computes the same codebook.

Reference:
    van den Oord et al., Neural Discrete Representation Learning, 2017,
    https://arxiv.org/abs/1711.00937, appendix A.1 (moving averages);
    Razavi et al., VQ-VAE-2, 2019, https://arxiv.org/abs/1906.00446, section 3.1;
    Arthur and Vassilvitskii, k-means++, 2007 (seeding);
    Dhariwal et al., Jukebox, 2020, https://arxiv.org/abs/2005.00341, section 3 (restarts);
    Zheng and Vedaldi, Online Clustered Codebook, 2023, https://arxiv.org/abs/2307.15139, eq. 3-5
    (pull of unused codes);
    Huh et al., Straightening Out the Straight-Through Estimator, 2023,
    https://arxiv.org/abs/2305.08842, section 4 (affine map of the codebook).
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.ops import code_stats, nearest_code

NUDGE = 1e-3  # of a row's root mean square: parts equal codes, and is far below their distances

AllReduce = Callable[..., tuple[Tensor, ...]]
Parts = Callable[[Tensor], Iterable[Tensor]]


def local(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors: the ``all_reduce`` of a single process."""
    return tensors


def whole(x: Tensor) -> tuple[Tensor, ...]:
    """Return all rows in one piece."""
    return (x,)


def kmeans(
    x: Tensor,
    size: int,
    *,
    candidates: Tensor | None = None,
    iterations: int = 10,
    seeding: str = "random",
    cosine: bool = False,
    generator: torch.Generator | None = None,
    all_reduce: AllReduce = local,
    parts: Parts = whole,
) -> tuple[Tensor, Tensor]:
    """Return ``size`` centroids of the rows of ``x`` and how many rows each has.

    A cluster that runs empty takes a slightly moved copy of one of the largest clusters, which
    splits it in the next iteration. With fewer rows than ``size`` some stay empty; a little noise
    moves those off the rows that they copy, so that no two are equal and later rows can part them.

    Args:
        x: ``(N, d)`` float32, this rank's rows.
        size: number of centroids K.
        candidates: ``(M, d)``, at least one row, the same on all ranks; centres start at some of
            them. Default: ``x``.
        iterations: Lloyd iterations.
        seeding: ``"random"`` distinct candidates, or ``"plusplus"``: each next centre is drawn
            with probability proportional to the squared distance to the nearest one so far.
        cosine: cluster directions; centroids have unit length.
        generator: the random numbers; it has to be in the same state on all ranks.
        all_reduce: sum over ranks.
        parts: splits the rows into the pieces that are searched one after the other; a place for
            a progress bar. The pieces change nothing in the result.

    Returns:
        Centroids ``(K, d)`` and counts ``(K,)`` over all ranks, float32.
    """
    pool = x if candidates is None else candidates
    if cosine:
        x, pool = F.normalize(x, dim=-1), F.normalize(pool, dim=-1)
    seed = _plusplus if seeding == "plusplus" else _random_rows
    centroids = seed(pool, size, generator)
    spread = 1e-3 * pool.std(correction=0)
    for _ in range(iterations):
        counts, sums = all_reduce(*code_stats(x, _assign(x, centroids, parts), size))
        moved = sums / counts.clamp(min=1)[:, None]
        centroids = torch.where(counts[:, None] > 0, moved, centroids)
        centroids = _split_largest(centroids, counts, spread, generator)
        if cosine:
            centroids = F.normalize(centroids, dim=-1)
    counts, _ = all_reduce(*code_stats(x, _assign(x, centroids, parts), size))
    empty = (counts == 0).nonzero()[:, 0]
    noise = torch.randn(empty.numel(), centroids.shape[1], generator=generator).to(centroids)
    centroids = centroids.index_add(0, empty, NUDGE * pool.square().mean().sqrt() * noise)
    return F.normalize(centroids, dim=-1) if cosine else centroids, counts


def ema_step(
    average: tuple[Tensor, Tensor], batch: tuple[Tensor, Tensor], decay: float, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the moving averages after one step, and the codebook they imply.

    ``n <- decay n + (1 - decay) counts``, ``m <- decay m + (1 - decay) sums``, and code k is
    ``m_k`` over the smoothed ``n_k``: ``(n_k + eps) / (sum n + K eps) * sum n``.

    Args:
        average: counts ``n (K,)`` and sums ``m (K, d)`` so far, float32. They have to belong
            together (``m = n e``), or the first step moves every code.
        batch: counts and sums of this step, over all ranks.
        decay: between 0 (forget) and 1 (ignore the batch).
        eps: keeps the division finite.

    Returns:
        ``n (K,)``, ``m (K, d)`` and the codes ``e (K, d)``.
    """
    n = decay * average[0] + (1 - decay) * batch[0]
    m = decay * average[1] + (1 - decay) * batch[1]
    total = n.sum()
    smoothed = (n + eps) / (total + n.numel() * eps) * total
    return n, m, m / smoothed.clamp(min=torch.finfo(n.dtype).tiny)[:, None]


def restart_dead(
    codes: Tensor,
    n: Tensor,
    candidates: Tensor,
    threshold: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return codes and counts after dead codes have become candidate rows.

    A code is dead when its average count is below ``threshold`` times the mean count of all codes:
    relative, so that it means the same at every batch size. A restarted code gets the mean count
    and so has time to prove itself. No candidate is used twice; when there are fewer candidates
    than dead codes, the deadest are restarted. A little noise moves each off its candidate, so
    that equal candidates make different codes.

    Args:
        codes: ``(K, d)`` float32.
        n: ``(K,)`` float32, moving averages of how often each code is chosen.
        candidates: ``(M, d)``, the same on all ranks; M may be 0.
        threshold: share of the mean count below which a code is dead; 0 turns restarts off.
        generator: the random numbers; it has to be in the same state on all ranks.

    Returns:
        New codes ``(K, d)`` and counts ``(K,)``.
    """
    mean = n.mean()
    order = torch.argsort(n, stable=True)
    room = min(int((n < threshold * mean).sum()), candidates.shape[0])
    dead = order[:room]
    rows = torch.randperm(candidates.shape[0], generator=generator)[:room].to(codes.device)
    fresh = candidates[rows]
    noise = torch.randn(fresh.shape, generator=generator).to(fresh)
    fresh = fresh + NUDGE * fresh.square().mean(-1, keepdim=True).sqrt() * noise
    codes, n = codes.clone(), n.clone()
    codes[dead] = fresh
    n[dead] = mean
    return codes, n


def pull_strength(n: Tensor, decay: float) -> Tensor:
    """Return how far each code moves to its nearest latent: near 1 if unused, else near 0.

    ``exp(-10 K p_k / (1 - decay) - 1e-3)`` with the share ``p_k`` of code k in all choices.

    Args:
        n: ``(K,)`` float32, moving averages of how often each code is chosen.
        decay: that of the averages, 0 to 1.

    Returns:
        ``(K,)``, above 0 and below 1; the same where no code has been chosen yet.
    """
    share = n / n.sum().clamp(min=torch.finfo(n.dtype).tiny)
    return torch.exp(-10 * n.numel() * share / max(1 - decay, 1e-9) - 1e-3)


def moments_of_sums(count: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """Return mean and variance ``(2, d)`` of ``count ()`` rows from their sums ``(d,)``."""
    mean = total / count.clamp(min=1)
    return torch.stack([mean, (squares / count.clamp(min=1) - mean.square()).clamp(min=0)])


def affine_map(latents: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and shift ``(d,)`` that give codes the mean and variance of latents.

    Args:
        latents: ``(2, d)`` float32, mean and variance.
        codes: the same of the codes.
    """
    floor = torch.finfo(torch.float32).eps  # a channel that does not vary keeps a finite scale
    scale = (latents[1].clamp(min=floor) / codes[1].clamp(min=floor)).sqrt()
    return scale, latents[0] - scale * codes[0]


def _assign(x: Tensor, centroids: Tensor, parts: Parts) -> Tensor:
    return torch.cat([nearest_code(part, centroids)[1] for part in parts(x)])


def _random_rows(pool: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """Return ``(size, d)`` distinct rows; if there are too few, all of them again and again."""
    rows = torch.randperm(pool.shape[0], generator=generator).to(pool.device)
    return pool[rows[torch.arange(size, device=pool.device) % pool.shape[0]]]


def _plusplus(pool: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    picks = torch.empty(size, dtype=torch.int64)
    uniform = torch.rand(size, generator=generator, dtype=torch.float64)
    distance = pool.new_ones(pool.shape[0])
    for k in range(size):
        ladder = distance.double().cumsum(0).cpu()
        pick = torch.searchsorted(ladder, uniform[k : k + 1] * ladder[-1], right=True)[0]
        picks[k] = pick.clamp(max=pool.shape[0] - 1)
        to_new = (pool - pool[picks[k]]).square().sum(-1)
        distance = to_new if k == 0 else torch.minimum(distance, to_new)
    return pool[picks.to(pool.device)]


def _split_largest(
    centroids: Tensor, counts: Tensor, spread: Tensor, generator: torch.Generator | None
) -> Tensor:
    empty = (counts == 0).nonzero()[:, 0]
    largest = torch.argsort(counts, descending=True, stable=True)[: empty.numel()]
    largest = largest[counts[largest] > 1]
    noise = torch.randn(largest.numel(), centroids.shape[1], generator=generator)
    centroids = centroids.clone()
    centroids[empty[: largest.numel()]] = centroids[largest] + spread * noise.to(centroids)
    return centroids
