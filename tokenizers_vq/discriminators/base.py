"""What every discriminator promises."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Discriminator(nn.Module, ABC):
    """Tells signals from reconstructions, place by place.

    Maps ``x (B, C, *S)`` to logits ``(B, 1, *map)``; positive means "real".
    """

    def check_signal(self, x: Tensor) -> None:
        """Raise ``ShapeError`` unless ``x (B, C, *S)`` can be judged; any signal, by default.

        Training calls it with every batch, also before the discriminator plays, so that a run that
        has to fail does so in its first step.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(B, 1, *map)`` of signals ``(B, C, *S)``."""
