"""Periodic activations for waveforms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenizers_vq.backbones.streaming import State


class Snake(nn.Module):
    """``x + sin(alpha x)^2 / alpha`` with a learned frequency per channel.

    Args:
        channels: C.

    Shapes:
        x (B, C, T) -> (B, C, T)

    Reference:
        Ziyin et al., Neural Networks Fail to Learn Periodic Functions and How to Fix It, 2020,
        https://arxiv.org/abs/2006.08195, eq. 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation, of the same shape."""
        return x + torch.sin(self.alpha * x).square() / (self.alpha + 1e-9)

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the activation of the next samples; there is nothing to remember."""
        return self(x), None
