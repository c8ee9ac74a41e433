"""Vector quantization with a learned table of codes.

Reference:
    van den Oord et al., Neural Discrete Representation Learning, 2017,
    https://arxiv.org/abs/1711.00937, eq. 1-3 and appendix A.1;
    Yu et al., Vector-quantized Image Modeling with Improved VQGAN, 2021,
    https://arxiv.org/abs/2110.04627, section 3.2 (cosine).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.codebook import ema_step, kmeans, restart_dead, statistics
from tokenizers_vq.functional.distributed import gather_rows, sum_over_ranks
from tokenizers_vq.functional.nearest import nearest_codes
from tokenizers_vq.functional.straight_through import rotate_to, straight_through
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import mean_square

CHOICES = {
    "codebook_update": ("gradient", "ema"),
    "metric": ("euclidean", "cosine"),
    "kmeans_init": ("none", "random", "plusplus"),
    "estimator": ("straight_through", "rotation"),
}


class VectorQuantizer(Quantizer):
    """Vector quantization: the nearest of ``codebook_size`` learned vectors.

    The codebook learns by gradient (term ``codebook``), or in ``update`` by moving averages of the
    latents that chose each code. ``update`` also starts the codebook from k-means of its first
    batch and restarts dead codes at random latents, in either case if asked to.

    With the cosine metric, latents and codes have unit length in the search, the losses and the
    output; the gradient passes through the normalisation.

    Args:
        dim: latent width D; None for ``code_dim``.
        codebook_size: number of codes K.
        code_dim: width d of the codes; None for ``dim``.
        codebook_update: ``"gradient"`` or ``"ema"``.
        metric: ``"euclidean"`` or ``"cosine"``.
        decay: of the moving averages of counts and sums, per update.
        commitment_weight: pulls latents to their codes; beta in the paper.
        codebook_weight: pulls codes to their latents; only with ``"gradient"``.
        restart_threshold: a code is dead below this share of the mean count; 0 never restarts.
        kmeans_init: ``"none"``, or the seeding ``"random"`` or ``"plusplus"``.
        estimator: ``"straight_through"`` or ``"rotation"``.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Raises:
        ConfigError: an option is none of its choices, both widths are missing, or a size is
            below 1.

    Differs from the paper: commitment and codebook terms are means over tokens and dimensions.

    Example:
        >>> q = VectorQuantizer(dim=8, codebook_size=16)
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    float32_buffers: tuple[str, ...] = ("cluster_size", "initialized", "nonfinite", "updates")
    codebook: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor
    initialized: Tensor
    nonfinite: Tensor
    updates: Tensor

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int | None = None,
        *,
        codebook_size: int,
        code_dim: int | None = None,
        codebook_update: str = "gradient",
        metric: str = "euclidean",
        decay: float = 0.99,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        restart_threshold: float = 0.05,
        kmeans_init: str = "none",
        estimator: str = "straight_through",
    ) -> None:
        width = code_dim or dim
        if width is None:
            raise ConfigError(f"{type(self).__name__}: expected dim or code_dim; got neither.")
        super().__init__(dim, width, (codebook_size,))
        self.codebook_update = self._choice("codebook_update", codebook_update)
        self.metric = self._choice("metric", metric)
        self.kmeans_init = self._choice("kmeans_init", kmeans_init)
        self.estimator = self._choice("estimator", estimator)
        self.decay = decay
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.restart_threshold = restart_threshold
        self._make_state(self._initial_codes(codebook_size, width))

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the nearest codes; the lowest of equally near ones."""
        return nearest_code(self._signal(u), self.codes())[1][:, None]

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the indices ``(N, C, 1)`` of up to ``count`` nearest codes, nearest first."""
        return nearest_codes(self._signal(u), self.codes(), count)[..., None]

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, 1)``."""
        return F.embedding(indices[:, 0], self.codes())

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the terms ``commitment`` and, for a codebook with gradient, ``codebook``."""
        u = self._signal(u)
        commitment = mean_square(u, codes.detach(), valid)
        terms = {"commitment": commitment}
        loss = self.commitment_weight * commitment
        if self.codebook_update == "gradient":
            terms["codebook"] = mean_square(codes, u.detach(), valid)
            loss = loss + self.codebook_weight * terms["codebook"]
        return loss, {name: term.detach() for name, term in terms.items()}

    def surrogate(self, u: Tensor, codes: Tensor) -> Tensor:
        """Return ``codes`` with the gradient of the chosen estimator."""
        estimate = rotate_to if self.estimator == "rotation" else straight_through
        return estimate(self._signal(u), codes)

    def codes(self) -> Tensor:
        """Return the codebook ``(K, d)`` float32 as the search sees it."""
        codes = self.codebook.float()
        return F.normalize(codes, dim=-1) if self.metric == "cosine" else codes

    @property
    def has_state(self) -> bool:
        """Whether ``update`` does anything."""
        restarts = self.restart_threshold > 0 or self.kmeans_init != "none"
        return restarts or self.codebook_update == "ema"

    @property
    def learns_by_update(self) -> bool:
        """Whether the codebook learns in ``update`` only."""
        return self.codebook_update == "ema"

    def code_update(self, u: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Follow one step's rows; k-means in the first step that has any."""
        u = self._signal(u)
        counts, sums = statistics(u, indices[:, 0], self.codebook_sizes[0])
        counts, sums, skipped = sum_over_ranks(counts, sums, skipped)
        self.nonfinite += skipped
        if not bool(counts.sum() > 0):
            return False
        self.updates += 1
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
        if bool((n < self.restart_threshold * n.mean()).any()):
            self._restart(u)

    def _restart(self, u: Tensor) -> None:
        """Move dead codes to latents of this step, the same ones on every rank."""
        pool = gather_rows(u, limit=self.codebook_sizes[0])
        before = self.cluster_size.clone()
        codes, n = restart_dead(
            self.codebook.float(), before, pool, self.restart_threshold, self._generator()
        )
        moved = n != before
        self.codebook[moved] = codes[moved].to(self.codebook.dtype)
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
        self.codebook.copy_(codes)
        self.cluster_size.copy_(counts.clamp(min=1))
        if self.codebook_update == "ema":
            self.cluster_sum.copy_(codes * self.cluster_size[:, None])
        self.initialized.fill_(1)

    def _generator(self) -> torch.Generator:
        """Return random numbers that are new at every step and the same on all ranks.

        The global generators of the ranks differ, so the seed is the number of updates so far.
        """
        return torch.Generator().manual_seed(int(self.updates))

    def _signal(self, u: Tensor) -> Tensor:
        return F.normalize(u, dim=-1) if self.metric == "cosine" else u

    def _choice(self, option: str, value: str) -> str:
        if value not in CHOICES[option]:
            raise unknown_name(f"{type(self).__name__} {option}", value, CHOICES[option])
        return value

    def _initial_codes(self, size: int, width: int) -> Tensor:
        codes = torch.empty(size, width).uniform_(-1 / size, 1 / size)
        return F.normalize(codes, dim=-1) if self.metric == "cosine" else codes

    def _make_state(self, codes: Tensor) -> None:
        if self.codebook_update == "ema":
            self.float32_buffers = (*self.float32_buffers, "codebook", "cluster_sum")
            self.register_buffer("codebook", codes)
            self.register_buffer("cluster_sum", codes.clone())
        else:
            self.codebook = nn.Parameter(codes)
        self.register_buffer("cluster_size", torch.ones(codes.shape[0]))
        self.register_buffer("initialized", torch.zeros(()))
        self.register_buffer("nonfinite", torch.zeros(()))
        self.register_buffer("updates", torch.zeros(()))
