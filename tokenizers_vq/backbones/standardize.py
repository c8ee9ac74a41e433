"""Channels of different units brought to one scale, by statistics of the training set."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, check_shape


class Standardize(nn.Module):
    """Subtract the mean of each channel and divide by its standard deviation.

    It begins as the identity; ``fit`` gives it statistics, once, before training. They are buffers,
    so that they travel with the weights.

    Args:
        channels: C.
        groups: numbers of neighbouring channels that share a standard deviation, the mean of
            theirs; together C. None for one per channel.

    Shapes:
        x (B, C, *S) -> (B, C, *S)

    Raises:
        ConfigError: the groups are not C channels.
    """

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, channels: int, groups: Sequence[int] | None = None) -> None:
        super().__init__()
        self.groups = tuple(groups or (1,) * channels)
        if sum(self.groups) != channels or min(self.groups) < 1:
            raise ConfigError(
                f"Standardize: expected groups of {channels} channels together; got "
                f"{sum(self.groups)}. Correct groups in the backbone config."
            )
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("fitted", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(x - mean) / std``."""
        return (x - self._column(self.mean, x)) / self._column(self.std, x)

    def undo(self, x: Tensor) -> Tensor:
        """Return ``x * std + mean``."""
        return x * self._column(self.std, x) + self._column(self.mean, x)

    @torch.no_grad()
    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Take the statistics of the training set.

        Args:
            mean: ``(C,)``.
            std: ``(C,)``; a channel or group that never changes gets 1.

        Raises:
            ShapeError: other sizes.
        """
        for given in (mean, std):
            check_shape(given, str(len(self.mean)), "Standardize.fit", "One number per channel.")
        shared = torch.cat(
            [part.mean().expand(len(part)) for part in torch.split(std, list(self.groups))]
        )
        self.mean.copy_(mean)
        self.std.copy_(torch.where(shared > 1e-6, shared, torch.ones_like(shared)))
        self.fitted.fill_(1)

    @staticmethod
    def _column(values: Tensor, x: Tensor) -> Tensor:
        return values.view(-1, *[1] * (x.ndim - 2))
