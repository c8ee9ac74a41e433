"""Losses of signed distances, on samples ``(B, 4, N)``: x, y, z, distance.

Reference:
    Park et al., DeepSDF: Learning Continuous Signed Distance Functions for Shape Representation,
    2019, https://arxiv.org/abs/1901.05103, eq. 4 (clipped distances);
    Mescheder et al., Occupancy Networks, 2019, https://arxiv.org/abs/1812.03828, eq. 3.
    Differs from the second: the probability of being inside is a sigmoid of the distance, on both
    sides, so that samples on the surface have a target of one half.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizers_vq.errors import ConfigError


class ClippedDistance:
    """Mean of ``|d_hat - d| / limit``, where far from the surface only the side counts.

    A sample with ``|d| >= limit`` has no error once ``d_hat`` is at least that far on its side.
    Clipping both, as in the reference, has the same minima, but no gradient where ``d_hat`` is far
    on the wrong side.

    Args:
        limit: above 0.
    """

    def __init__(self, limit: float = 0.1) -> None:
        self.limit = _above_zero("ClippedDistance", "limit", limit)

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the loss ``()`` of samples ``(B, 4, N)``."""
        real, fake = x[:, 3].float(), x_hat[:, 3].float()
        error = fake - real.clamp(-self.limit, self.limit)
        error = torch.where(real >= self.limit, error.clamp(max=0), error)
        error = torch.where(real <= -self.limit, error.clamp(min=0), error)
        return error.abs().mean() / self.limit


class SoftOccupancy:
    """Mean cross entropy between ``sigmoid(-d_hat / width)`` and ``sigmoid(-d / width)``.

    The entropy of the target is taken off, so that the same distances have loss 0.

    Args:
        width: distance over which a point goes from inside to outside, above 0.
    """

    def __init__(self, width: float = 0.02) -> None:
        self.width = _above_zero("SoftOccupancy", "width", width)

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the loss ``()`` of samples ``(B, 4, N)``."""
        real, fake = (-one[:, 3].float() / self.width for one in (x, x_hat))
        target = real.sigmoid()
        cross = F.binary_cross_entropy_with_logits(fake, target)
        return cross - F.binary_cross_entropy_with_logits(real, target)


def _above_zero(where: str, option: str, value: float) -> float:
    if not value > 0:
        raise ConfigError(f"{where}: expected a {option} above 0; got {value}. Correct it.")
    return value
