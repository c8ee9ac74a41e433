"""A table of codes that learns: its state, and how it follows the data of each step.

Reference:
    van den Oord et al., Neural Discrete Representation Learning, 2017,
    https://arxiv.org/abs/1711.00937, appendix A.1 (moving averages);
    Dhariwal et al., Jukebox, 2020, https://arxiv.org/abs/2005.00341, section 3 (restarts);
    Zheng and Vedaldi, Online Clustered Codebook, 2023, https://arxiv.org/abs/2307.15139, eq. 3-5
    (``restart="cvq"``);
    Huh et al., Straightening Out the Straight-Through Estimator, 2023,
    https://arxiv.org/abs/2305.08842, section 4 (``affine``).
    Differs from Huh et al.: the map is that of running moments, and changes in ``update`` only.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.codebook import (
    affine_map,
    ema_step,
    kmeans,
    moments_of_sums,
    pull_strength,
    restart_dead,
)
from tokenizers_vq.functional.distributed import closest_over_ranks, gather_rows, sum_over_ranks
from tokenizers_vq.ops import code_stats, nearest_code
from tokenizers_vq.quantizers.flat import check_share, code_width
from tokenizers_vq.quantizers.rows import RowQuantizer

UPDATES = ("gradient", "ema")
METRICS = ("euclidean", "cosine")
RESTARTS = ("random", "cvq")
SEEDINGS = ("none", "random", "plusplus")


class LearnedCodes(RowQuantizer):
    """A quantizer whose codes are the rows of a learned table.

    The table learns by gradient, or in ``update`` by moving averages of the latents that chose
    each code. In either case ``update`` can start it from k-means of its first batch, and restart
    dead codes at random latents. A table that learns by gradient can instead be pulled, code by
    code and the less a code is used the more, to the nearest latents (``restart="cvq"``), and can
    be seen through an affine map that gives it the mean and variance of the latents, channel by
    channel (``affine``): then all codes follow when the latents drift.

    Args:
        dim: latent width D; None for ``code_dim``.
        codebook_size: number of codes K.
        code_dim: width d of the codes; None for ``dim``.
        codebook_update: ``"gradient"`` or ``"ema"``.
        metric: ``"euclidean"``, or ``"cosine"`` for latents and codes of unit length.
        decay: of the moving averages, per update.
        restart: ``"random"`` or ``"cvq"``.
        restart_threshold: a code is dead below this share of the mean count; 0 never restarts.
            Only with ``"random"``.
        kmeans_init: ``"none"``, or the seeding ``"random"`` or ``"plusplus"``.
        affine: see the codebook through the map above.

    Raises:
        ConfigError: an option is none of its choices or does not go with another, ``decay`` or
            ``restart_threshold`` is not in 0..1, both widths are missing, or a size is below 1.
    """

    conventions = (*RowQuantizer.conventions, "metric", "affine")
    float32_buffers: tuple[str, ...] = ("cluster_size", "initialized", "nonfinite", "updates")
    codebook: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor
    initialized: Tensor
    nonfinite: Tensor
    updates: Tensor
    latent_moments: Tensor
    code_moments: Tensor

    def __init__(
        self,
        dim: int | None,
        codebook_size: int,
        code_dim: int | None,
        *,
        codebook_update: str,
        metric: str,
        decay: float,
        restart: str,
        restart_threshold: float,
        kmeans_init: str,
        affine: bool,
    ) -> None:
        width = code_width(type(self).__name__, dim, code_dim)
        super().__init__(dim, width, (codebook_size,))
        self.codebook_update = self._choice("codebook_update", codebook_update, UPDATES)
        self.metric = self._choice("metric", metric, METRICS)
        self.restart = self._choice("restart", restart, RESTARTS)
        self.kmeans_init = self._choice("kmeans_init", kmeans_init, SEEDINGS)
        check_share(type(self).__name__, decay=decay, restart_threshold=restart_threshold)
        self.decay = decay
        self.restart_threshold = restart_threshold
        self.affine = affine
        if restart == "cvq":
            self._require("restart='cvq'", codebook_update="gradient")
        if affine:
            self._require("affine=True", codebook_update="gradient", metric="euclidean")
        self._make_state(self._initial_codes(codebook_size, width))

    def codes(self) -> Tensor:
        """Return the codebook ``(K, d)`` float32 as the search sees it."""
        codes = self.codebook.float()
        if self.affine:
            scale, shift = affine_map(self.latent_moments, self.code_moments)
            codes = codes * scale + shift
        return F.normalize(codes, dim=-1) if self.metric == "cosine" else codes

    @property
    def restarts(self) -> bool:
        """Whether codes that nobody chooses are moved."""
        return self.restart == "cvq" or self.restart_threshold > 0

    @property
    def has_state(self) -> bool:
        """Whether ``update`` does anything."""
        moves = self.restarts or self.kmeans_init != "none" or self.affine
        return moves or self.codebook_update == "ema"

    @property
    def learns_by_update(self) -> bool:
        """Whether part of what was asked for happens in ``update`` only."""
        asked = self.kmeans_init != "none" or self.restart == "cvq" or self.affine
        return asked or self.codebook_update == "ema"

    def code_update(self, u: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Follow one step's rows; k-means in the first step that has any."""
        u = self._signal(u)
        counts, sums = code_stats(u, indices[:, 0], self.codebook_sizes[0])
        squares = u.square().sum(0) if self.affine else u.new_zeros(0)
        counts, sums, squares, skipped = sum_over_ranks(counts, sums, squares, skipped)
        self.nonfinite += skipped
        if not bool(counts.sum() > 0):
            return False
        self.updates += 1
        if self.affine:
            self._follow_moments(moments_of_sums(counts.sum(), sums.sum(0), squares))
        if self.kmeans_init != "none" and not bool(self.initialized):
            self._start_from(u)
            return True
        self._follow(u, counts, sums)
        return False

    def _follow(self, u: Tensor, counts: Tensor, sums: Tensor) -> None:
        if self.codebook_update == "ema":
            average = (self.cluster_size, self.cluster_sum)
            n, m, codes = ema_step(average, (counts, sums), self.decay)
            if self.metric == "cosine":
                codes = F.normalize(codes, dim=-1)
            self.cluster_sum.copy_(m)
            self.codebook.copy_(codes)
        else:
            n = self.decay * self.cluster_size + (1 - self.decay) * counts
        self.cluster_size.copy_(n)
        if self.restart == "cvq":
            self._pull(u)
        elif bool((n < self.restart_threshold * n.mean()).any()):
            self._restart(u)

    def _follow_moments(self, latents: Tensor) -> None:
        """Average what the affine map is made of; plainly at first, like any short average."""
        rate = max(1 - self.decay, 1 / float(self.updates))
        codes = self.codebook.float()
        now = torch.stack([codes.mean(0), codes.var(0, correction=0)])
        self.latent_moments.lerp_(latents, rate)
        self.code_moments.lerp_(now, rate)

    def _pull(self, u: Tensor) -> None:
        """Move each code to its nearest latent on any rank, the further the less it is used."""
        codes = self.codes()
        distances, rows = torch.full_like(codes[:, 0], torch.inf), torch.zeros_like(codes)
        if u.shape[0]:
            distances, nearest = nearest_code(codes, u)
            rows = u[nearest]
        strength = pull_strength(self.cluster_size, self.decay)
        moved = torch.lerp(codes, closest_over_ranks(distances, rows), strength[:, None])
        self._write(moved, strength > 0)

    def _restart(self, u: Tensor) -> None:
        """Move dead codes to latents of this step, the same ones on every rank."""
        pool = gather_rows(u, limit=self.codebook_sizes[0])
        before = self.cluster_size.clone()
        codes, n = restart_dead(
            self.codes(), before, pool, self.restart_threshold, self._generator()
        )
        moved = n != before
        self._write(codes, moved)
        self.cluster_size.copy_(n)
        if self.codebook_update == "ema":
            self.cluster_sum[moved] = codes[moved] * n[moved, None]

    def _start_from(self, u: Tensor) -> None:
        """Replace the codebook by centroids of this step's latents, with matching averages."""
        pool = gather_rows(u, limit=8 * self.codebook_sizes[0])
        codes, counts = kmeans(
            u,
            self.codebook_sizes[0],
            candidates=pool,
            seeding=self.kmeans_init,
            cosine=self.metric == "cosine",
            generator=self._generator(),
            all_reduce=sum_over_ranks,
        )
        if self.affine:  # the map starts as the identity
            self.code_moments.copy_(self.latent_moments)
        self.codebook.copy_(codes)
        self.cluster_size.copy_(counts.clamp(min=1))
        if self.codebook_update == "ema":
            self.cluster_sum.copy_(codes * self.cluster_size[:, None])
        self.initialized.fill_(1)

    def _write(self, codes: Tensor, where: Tensor) -> None:
        """Make ``codes (K, d)`` what the search sees, in the rows ``where (K,)``."""
        if self.affine:
            scale, shift = affine_map(self.latent_moments, self.code_moments)
            codes = (codes - shift) / scale
        self.codebook[where] = codes[where].to(self.codebook.dtype)

    def _generator(self) -> torch.Generator:
        """Return random numbers that are new at every step and the same on all ranks.

        The global generators of the ranks differ, so the seed is the number of updates so far.
        """
        return torch.Generator().manual_seed(int(self.updates))

    def _signal(self, u: Tensor) -> Tensor:
        return F.normalize(u, dim=-1) if self.metric == "cosine" else u

    def _choice(self, option: str, value: str, choices: tuple[str, ...]) -> str:
        if value not in choices:
            raise unknown_name(f"{type(self).__name__} {option}", value, choices)
        return value

    def _require(self, option: str, **others: str) -> None:
        """Raise unless the other options have the values that ``option`` needs."""
        for other, value in others.items():
            if getattr(self, other) != value:
                raise ConfigError(
                    f"{type(self).__name__}: expected {other}='{value}' with {option}; "
                    f"got '{getattr(self, other)}'. Change one of the two."
                )

    def _initial_codes(self, size: int, width: int) -> Tensor:
        if self.affine:  # codes are mapped from their moments: keep those far from zero
            return torch.randn(size, width)
        codes = torch.empty(size, width).uniform_(-1 / size, 1 / size)
        return F.normalize(codes, dim=-1) if self.metric == "cosine" else codes

    def _make_state(self, codes: Tensor) -> None:
        if self.codebook_update == "ema":
            self.float32_buffers = (*self.float32_buffers, "codebook", "cluster_sum")
            self.register_buffer("codebook", codes)
            self.register_buffer("cluster_sum", codes.clone())
        else:
            self.codebook = nn.Parameter(codes)
        if self.affine:
            self.float32_buffers = (*self.float32_buffers, "latent_moments", "code_moments")
            neutral = torch.stack([torch.zeros(codes.shape[1]), torch.ones(codes.shape[1])])
            self.register_buffer("latent_moments", neutral)
            self.register_buffer("code_moments", neutral.clone())
        start = torch.zeros if self.restart == "cvq" else torch.ones
        self.register_buffer("cluster_size", start(codes.shape[0]))
        self.register_buffer("initialized", torch.zeros(()))
        self.register_buffer("nonfinite", torch.zeros(()))
        self.register_buffer("updates", torch.zeros(()))
