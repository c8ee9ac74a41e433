"""Vector quantization with a learned table of codes.

Reference:
    van den Oord et al., Neural Discrete Representation Learning, 2017,
    https://arxiv.org/abs/1711.00937, eq. 1-3 and appendix A.1;
    Yu et al., Vector-quantized Image Modeling with Improved VQGAN, 2021,
    https://arxiv.org/abs/2110.04627, section 3.2 (cosine);
    Wang et al., LARP: Tokenizing Videos with a Learned Autoregressive Generative Prior, 2024,
    https://arxiv.org/abs/2410.21264, section 3.2 (``sample_temperature``).
    Differs from LARP: codes are drawn in training only, so that encoding repeats itself. The
    papers of the other options are named where they are computed, in quantizers/learned.py and in
    functional/straight_through.py and regularize.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.nearest import nearest_codes
from tokenizers_vq.functional.regularize import assignment_entropies, orthogonality
from tokenizers_vq.functional.sampling import sample_codes
from tokenizers_vq.functional.straight_through import (
    directional,
    rotate_to,
    straight_through,
    synchronous,
)
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.flat import Flat, Tokens, check_share, mean_square, squared_distances
from tokenizers_vq.quantizers.learned import LearnedCodes

LEAST = 1e-3  # of a learned inverse temperature
ESTIMATORS = ("straight_through", "rotation", "diveq")


class VectorQuantizer(LearnedCodes):
    """Vector quantization: the nearest of ``codebook_size`` learned vectors.

    The codebook learns by gradient (term ``codebook``), or in ``update`` by moving averages of the
    latents that chose each code. ``update`` also starts the codebook from k-means of its first
    batch and restarts dead codes at random latents, in either case if asked to. Unused codes of a
    codebook that learns by gradient can instead be pulled to their nearest latents
    (``restart="cvq"``), and such a codebook can take the mean and variance of the latents
    (``affine``).

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
        restart: ``"random"``, or ``"cvq"``: every code moves to its nearest latent, the further
            the less it is used. Codes far from all latents share one: start near them.
        restart_threshold: a code is dead below this share of the mean count; 0 never restarts.
            Only with ``"random"``.
        kmeans_init: ``"none"``, or the seeding ``"random"`` or ``"plusplus"``.
        affine: give the codes the running mean and variance of the latents, channel by channel.
        estimator: ``"straight_through"``, ``"rotation"`` or ``"diveq"``. The last adds noise to the
            output in training and teaches the codes through it: both loss weights may be 0.
        sync_weight: share of the output's gradient that the codes get too; nu in the paper.
        sample_temperature: T; training draws codes from ``softmax(cosine / T)``, or for the
            Euclidean metric ``softmax(-distance^2 / T)``. 0 takes the nearest.
        learn_temperature: make 1 / T a parameter ``inverse_temperature`` that starts at the given
            T, 0.1 in LARP. The draws have no gradient: it learns from the entropies, which then
            are those of the distribution that is drawn from, or from a loss of yours on
            ``assignment_logits``.
        orthogonal_weight: of the mean squared cosine between codes; only with ``"gradient"``.
        entropy_weight: of the sample entropy less the batch entropy of soft assignments.
        entropy_temperature: T of those, ``softmax(-distance^2 / T)``; not used with
            ``learn_temperature``.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Terms:
        ``commitment``; with their weights ``codebook``, ``orthogonality``, ``entropy_sample`` and
        ``entropy_batch``. Entropies are in nats, the latter over the batches of all ranks in
        training, of each rank alone in evaluation.

    Raises:
        ConfigError: an option is none of its choices or does not go with another, both widths are
            missing, or a size is below 1.

    Differs from the paper: commitment and codebook terms are means over tokens and dimensions.

    Example:
        >>> q = VectorQuantizer(dim=8, codebook_size=16)
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

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
        restart: str = "random",
        restart_threshold: float = 0.05,
        kmeans_init: str = "none",
        affine: bool = False,
        estimator: str = "straight_through",
        sync_weight: float = 0.0,
        sample_temperature: float = 0.0,
        learn_temperature: bool = False,
        orthogonal_weight: float = 0.0,
        entropy_weight: float = 0.0,
        entropy_temperature: float = 0.01,
    ) -> None:
        super().__init__(
            dim,
            codebook_size,
            code_dim,
            codebook_update=codebook_update,
            metric=metric,
            decay=decay,
            restart=restart,
            restart_threshold=restart_threshold,
            kmeans_init=kmeans_init,
            affine=affine,
        )
        self.estimator = self._choice("estimator", estimator, ESTIMATORS)
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.sync_weight = sync_weight
        self.sample_temperature = sample_temperature
        self.orthogonal_weight = orthogonal_weight
        self.entropy_weight = entropy_weight
        self.entropy_temperature = entropy_temperature
        self.learn_temperature = learn_temperature
        self._check_options()
        if learn_temperature:
            self.inverse_temperature = nn.Parameter(torch.tensor(1 / sample_temperature))

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the nearest codes; the lowest of equally near ones."""
        return nearest_code(self._signal(u), self.codes())[1][:, None]

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the indices ``(N, C, 1)`` of up to ``count`` nearest codes, nearest first."""
        return nearest_codes(self._signal(u), self.codes(), count)[..., None]

    def plain_table(self) -> Tensor | None:
        """Return the codes ``(K, d)`` if indices and vectors are a plain search and look-up there.

        None where rows are projected or normalised first: heads of many parts search the tables of
        all of them in one call.
        """
        kept = type(self).code_indices is VectorQuantizer.code_indices
        plain = kept and self.project_in is None and self.metric == "euclidean"
        return self.codes() if plain else None

    def distances(self, u: Tensor) -> Tensor:
        """Return the squared distance ``(N, K)`` of ``u (N, d)`` to each code."""
        return squared_distances(self._signal(u), self.codes())

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, 1)``."""
        return F.embedding(indices[:, 0], self.codes())

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize ``u (N, d)``; in training perhaps with codes drawn at random."""
        with torch.no_grad():
            draws = self.training and self.sample_temperature > 0
            indices = self._draw(u) if draws else self.code_indices(u)
        return self.settle(u, source, indices, tokens)

    def settle(self, u: Tensor, source: Tensor, indices: Tensor, tokens: Tokens) -> Flat:
        """Quantize ``u (N, d)`` to the codes of ``indices (N, 1)``."""
        codes = self.code_vectors(indices)
        loss, terms = self.code_losses(u, indices, codes, tokens.valid)
        out = self.surrogate(source, codes)
        if self.sync_weight or self.estimator == "diveq":
            # A token that is not finite stands for nothing that a code could learn from.
            out = torch.where(tokens.valid[:, None], out, out.detach())
        return Flat(out, indices, loss, terms)

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the terms that have a weight."""
        u = self._signal(u)
        commitment = mean_square(u, codes.detach(), valid)
        terms = {"commitment": commitment}
        loss = self.commitment_weight * commitment
        if self.codebook_update == "gradient":
            terms["codebook"] = mean_square(codes, u.detach(), valid)
            loss = loss + self.codebook_weight * terms["codebook"]
        if self.orthogonal_weight:
            # A step without tokens has no loss, also where the codes alone would make one.
            terms["orthogonality"] = orthogonality(self.codes()) * valid.any()
            loss = loss + self.orthogonal_weight * terms["orthogonality"]
        if self.entropy_weight:
            terms["entropy_sample"], terms["entropy_batch"] = self._entropies(u, valid)
            spread = terms["entropy_sample"] - terms["entropy_batch"]
            loss = loss + self.entropy_weight * spread
        return loss, {name: term.detach() for name, term in terms.items()}

    def surrogate(self, u: Tensor, codes: Tensor) -> Tensor:
        """Return ``codes`` with the gradient of the chosen estimator."""
        u = self._signal(u)
        if self.estimator == "diveq" and self.training:
            return directional(u, codes)
        estimate = rotate_to if self.estimator == "rotation" else straight_through
        out = estimate(u, codes)
        return synchronous(out, codes, self.sync_weight) if self.sync_weight else out

    def assignment_logits(self, u: Tensor) -> Tensor:
        """Return the logits ``(N, K)`` that training draws codes for ``u (N, d)`` by.

        With gradients to latents, codes and a learned temperature: for a prior that is trained
        along.
        """
        return -self.distances(u) * self._sharpness()

    def _sharpness(self) -> float | Tensor:
        """Return what the squared distance is multiplied by in the draws."""
        # For unit vectors the squared distance is twice one minus the cosine.
        half = 0.5 if self.metric == "cosine" else 1.0
        if self.learn_temperature:
            return half * self.inverse_temperature.float().clamp(min=LEAST)
        return half / self.sample_temperature

    def _entropies(self, u: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        codes, temperature = self.codes(), self.entropy_temperature
        if self.learn_temperature:
            u, codes = u * self._sharpness() ** 0.5, codes * self._sharpness() ** 0.5
            temperature = 1.0
        # In evaluation ranks may have different numbers of batches: none waits for another.
        return assignment_entropies(u, codes, valid, temperature, all_ranks=self.training)

    def _draw(self, u: Tensor) -> Tensor:
        u, codes, sharpness = self._signal(u), self.codes(), self._sharpness()
        if isinstance(sharpness, Tensor):  # a graph would not hold it as a number
            u, codes, sharpness = u * sharpness.sqrt(), codes * sharpness.sqrt(), 1.0
        return sample_codes(u, codes, 1 / sharpness)[:, None]

    def _check_options(self) -> None:
        if self.estimator == "diveq":
            self._require("estimator='diveq'", codebook_update="gradient")
            if not self.restarts:
                raise ConfigError(
                    f"{type(self).__name__}: expected restarts with estimator='diveq'; got "
                    "restart_threshold=0. Codes that start far away never learn; set it above 0."
                )
        check_share(type(self).__name__, sync_weight=self.sync_weight)
        if self.sync_weight:
            self._require("a sync_weight", codebook_update="gradient")
            if self.estimator == "diveq":
                raise ConfigError(
                    f"{type(self).__name__}: expected sync_weight=0 with estimator='diveq'; got "
                    f"{self.sync_weight}. It teaches the codes through the output already."
                )
        if self.orthogonal_weight:
            self._require("an orthogonal_weight", codebook_update="gradient")
        if self.learn_temperature and not self.sample_temperature:
            raise ConfigError(
                f"{type(self).__name__}: expected a sample_temperature above 0 with "
                "learn_temperature; got 0. It is what the learned one starts at."
            )
        if self.sample_temperature < 0 or self.entropy_temperature <= 0:
            raise ConfigError(
                f"{type(self).__name__}: expected sample_temperature of 0 or more and "
                f"entropy_temperature above 0; got {self.sample_temperature} and "
                f"{self.entropy_temperature}. Turn entropies off by entropy_weight=0."
            )
