"""What every discriminator promises."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Discriminator(nn.Module, ABC):
    """Tells signals from reconstructions, place by place.

    Maps ``x (B, C, *S)`` to logits ``(B, 1, *map)``; positive means "real".
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(B, 1, *map)`` of signals ``(B, C, *S)``."""
