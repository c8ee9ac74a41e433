"""Entropy-constrained scalar quantization: integers, and the price of each.

Reference:
    Chou, Lookabaugh and Gray, Entropy-Constrained Vector Quantization, 1989,
    https://doi.org/10.1109/29.17498, eq. 2 (distortion plus weighted code length);
    Balle et al., End-to-end Optimized Image Compression, 2017, https://arxiv.org/abs/1611.01704,
    section 3 (a learned marginal, additive uniform noise).
    Differs from both: the marginal is a table over a finite set of integers, and the latent gets
    the slope of the linearly interpolated code length.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.entropy import weighted_mean
from tokenizers_vq.quantizers.rows import RowQuantizer


class ECSQ(RowQuantizer):
    """Entropy-constrained scalar quantization: round each channel, and pay for its code length.

    Each channel has its own codebook, the integers -m..m, and its own learned distribution over
    them. An ideal entropy coder with that distribution spends ``terms["rate"]`` bits per position;
    trading it for distortion is what ``rate_weight`` is for.

    Args:
        dim: latent width D; None for ``channels``.
        channels: number of channels d, and of codebooks K.
        max_level: the largest integer m.
        rate_weight: of the rate in bits per position.
        overflow_weight: of the mean squared excess of latents beyond ``max_level``.
        noise: in training, output the latent plus uniform noise in [-1/2, 1/2] instead of the code.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, d) with index = level + m

    Terms:
        ``rate`` in bits per position, ``overflow``.

    Raises:
        ConfigError: ``channels`` or ``max_level`` is below 1.

    Example:
        >>> q = ECSQ(dim=32, channels=4, max_level=3)
        >>> q(torch.zeros(2, 4, 4, 32)).indices.shape
        torch.Size([2, 4, 4, 4])
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        channels: int,
        max_level: int = 8,
        rate_weight: float = 0.01,
        overflow_weight: float = 1.0,
        noise: bool = False,
    ) -> None:
        if channels < 1 or max_level < 1:
            raise ConfigError(
                f"ECSQ: expected channels and max_level of at least 1; got {channels}, {max_level}."
            )
        super().__init__(dim, channels, (2 * max_level + 1,) * channels)
        self.max_level = max_level
        self.rate_weight = rate_weight
        self.overflow_weight = overflow_weight
        self.noise = noise
        levels = torch.arange(-max_level, max_level + 1)
        self.logits = nn.Parameter(-levels.abs().float().repeat(channels, 1))

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, d)`` of the nearest integers, clamped."""
        return (torch.round(self._clamped(u)) + self.max_level).long()

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the integers ``(N, d)`` as float32."""
        return (indices - self.max_level).float()

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the terms ``rate`` and ``overflow``.

        The rate has the value of the code lengths of the chosen levels. To the distribution it has
        their gradient; to a latent, the slope of the line between its two neighbouring integers,
        and beyond the last integer the slope of the last step.
        """
        lengths = self.code_lengths()
        chosen = _pick(lengths, indices).sum(-1)
        rate = weighted_mean(chosen + self._slope(u, lengths.detach()), valid)
        overflow = weighted_mean((u.abs() - self.max_level).relu().square().mean(-1), valid)
        loss = self.rate_weight * rate + self.overflow_weight * overflow
        return loss, {"rate": rate.detach(), "overflow": overflow.detach()}

    def surrogate(self, u: Tensor, codes: Tensor) -> Tensor:
        """Return ``codes`` with identity gradient, or in training with ``noise`` noisy latents."""
        if self.noise and self.training:
            return u + torch.rand_like(u) - 0.5
        return super().surrogate(u, codes)

    def code_lengths(self) -> Tensor:
        """Return the ideal code length in bits of each level of each channel, ``(d, 2m + 1)``."""
        return -F.log_softmax(self.logits.float(), dim=-1) / math.log(2)

    def probabilities(self) -> Tensor:
        """Return the learned distribution of each channel, ``(d, 2m + 1)`` float32: for coders."""
        return F.softmax(self.logits.float(), dim=-1)

    def _slope(self, u: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(N,)`` zeros with the gradient of the interpolated code length."""
        low = torch.floor(u.detach()).clamp(-self.max_level, self.max_level - 1).long()
        below = low + self.max_level
        step = _pick(lengths, below + 1) - _pick(lengths, below)
        return (step * (u - u.detach())).sum(-1)

    def _clamped(self, u: Tensor) -> Tensor:
        return u.clamp(-self.max_level, self.max_level)


def _pick(table: Tensor, indices: Tensor) -> Tensor:
    """Return ``table[c, indices[n, c]]`` as ``(N, d)``."""
    return torch.gather(table.T, 0, indices)
