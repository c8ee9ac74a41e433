"""Finite scalar perturbation: uniform noise within levels that a distribution function makes.

Reference:
    Finite scalar perturbation of VP-VAE, 2026, https://arxiv.org/abs/2602.17133.
    Differs from the paper: the moments are those of all ranks together.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.moments import moments
from tokenizers_vq.functional.radix import check_radix, pack_digits, unpack_digits
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.quantizers.fsq import check_levels
from tokenizers_vq.quantizers.rows import RowQuantizer

SPREAD = 12**-0.5  # standard deviation of the uniform distribution on [0, 1]
MOMENTS = ("mean", "variance", "skewness", "kurtosis")
LARGEST = 1e4  # a latent counts as this in the moments: fourth powers of more would overflow
# Variance and excess kurtosis of the distribution that each function belongs to; Cauchy's has none.
TARGETS = {
    "tanh": (math.pi**2 / 12, 1.2),
    "sigmoid": (math.pi**2 / 3, 1.2),
    "normal": (1.0, 0.0),
    "laplace": (2.0, 3.0),
    "cauchy": None,
}


class FSP(RowQuantizer):
    """Finite scalar perturbation: channels made uniform, then cut into levels of equal width.

    A cumulative distribution function takes each channel to (0, 1); if the latents have that
    distribution, every level is used equally often. The output is scaled to unit variance. In
    training a channel passes with uniform noise as wide as its level instead of being rounded;
    noise that would leave (0, 1) is not added. A regulariser pulls the latents' moments to those
    of the distribution.

    Args:
        dim: latent width D; None for the number of channels.
        levels: number of levels per channel; their product is the codebook size.
        cdf: ``"tanh"`` (logistic with scale 1/2), ``"sigmoid"``, ``"normal"``, ``"laplace"`` or
            ``"cauchy"``, which has no moments and so no regulariser.
        quantize_rate: share of channel values that are rounded in training; the rest get noise.
        moment_weights: of the squared differences in mean, variance, skewness and kurtosis.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Terms:
        ``moment_mean``, ``moment_variance``, ``moment_skewness``, ``moment_kurtosis``: squared
        differences, means over channels. They are of the batches of all ranks in training, of each
        rank alone in evaluation.

    Raises:
        ConfigError: ``levels`` are none that FSQ takes, ``cdf`` is none of the above,
            ``quantize_rate`` is not in 0..1, or there are not four weights.

    Example:
        >>> q = FSP(dim=16, levels=(8, 5))
        >>> q(torch.zeros(2, 4, 4, 16)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    conventions = (*RowQuantizer.conventions, "levels", "cdf")
    float32_buffers = ("_count",)
    _count: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        levels: Sequence[int],
        cdf: str = "tanh",
        quantize_rate: float = 0.0,
        moment_weights: Sequence[float] = (0.1, 0.07, 0.0, 0.0),
    ) -> None:
        levels = check_levels(levels, "FSP")
        if cdf not in TARGETS:
            raise unknown_name("FSP cdf", cdf, TARGETS)
        if not 0 <= quantize_rate <= 1:
            raise ConfigError(
                f"FSP: expected quantize_rate in 0..1; got {quantize_rate}. It is a probability."
            )
        if len(moment_weights) != len(MOMENTS):
            raise ConfigError(
                f"FSP: expected four moment_weights; got {len(moment_weights)}. "
                f"Give one for each of {', '.join(MOMENTS)}."
            )
        super().__init__(dim, len(levels), (check_radix(levels, "FSP"),))
        self.levels = levels
        self.cdf = cdf
        self.quantize_rate = quantize_rate
        self.moment_weights = list(moment_weights)
        self.register_buffer("_count", torch.tensor(levels).float(), persistent=False)

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The levels of all channels."""
        return (self.levels,)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of ``u (N, d)``."""
        level = torch.floor(self._uniform(u) * self._count)
        digits = torch.minimum(level, self._count - 1).long()
        return pack_digits(digits, self.levels)[:, None]

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, 1)``: centres of levels, unit variance."""
        digits = unpack_digits(indices[:, 0], self.levels).float()
        return _unit_variance((digits + 0.5) / self._count)

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the terms of the four moments; none for a distribution without moments."""
        target = TARGETS[self.cdf]
        if target is None:
            return u.new_zeros(()), {}
        wanted = (0.0, target[0], 0.0, target[1])
        # In evaluation ranks may have different numbers of batches: nothing may wait for another.
        found = moments(u.clamp(-LARGEST, LARGEST), valid, all_ranks=self.training)
        some = valid.any().float()
        terms = [some * (a - b).square().mean() for a, b in zip(found, wanted, strict=True)]
        pairs = zip(self.moment_weights, terms, strict=True)
        # A sum of zeros would still be NaN where an unused moment overflows.
        loss = sum((weight * term for weight, term in pairs if weight), u.new_zeros(()))
        names = zip(MOMENTS, terms, strict=True)
        return loss, {f"moment_{name}": term.detach() for name, term in names}

    def surrogate(self, u: Tensor, codes: Tensor) -> Tensor:
        """Return ``codes`` with the gradient of the function; in training mostly with noise."""
        p = self._uniform(u)
        rounded = straight_through(_unit_variance(p), codes)
        if not self.training:
            return rounded
        proposal = p + (torch.rand_like(p) - 0.5) / self._count
        noisy = torch.where((proposal > 0) & (proposal < 1), proposal, p)
        keep = torch.rand_like(p) < self.quantize_rate
        return torch.where(keep, rounded, _unit_variance(noisy))

    def _uniform(self, u: Tensor) -> Tensor:
        """Return ``u`` under the distribution function, in [0, 1]."""
        if self.cdf == "tanh":
            return (torch.tanh(u) + 1) / 2
        if self.cdf == "sigmoid":
            return torch.sigmoid(u)
        if self.cdf == "normal":
            return (1 + torch.erf(u / math.sqrt(2))) / 2
        if self.cdf == "laplace":
            tail = torch.exp(-u.abs()) / 2
            return torch.where(u < 0, tail, 1 - tail)
        return torch.atan(u) / math.pi + 0.5


def _unit_variance(p: Tensor) -> Tensor:
    return (p - 0.5) / SPREAD
