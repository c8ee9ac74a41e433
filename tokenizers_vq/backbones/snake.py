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
        return periodic(x, self.alpha, (self.alpha + 1e-9).reciprocal())

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the activation of the next samples; there is nothing to remember."""
        return self(x), None


class SnakeBeta(nn.Module):
    """``x + sin(alpha x)^2 / beta`` with two learned numbers per channel, kept as logarithms.

    Args:
        channels: C.

    Shapes:
        x (B, C, T) -> (B, C, T)

    Reference:
        Lee et al., BigVGAN, 2022, https://arxiv.org/abs/2206.04658, section 3.2, with the amplitude
        apart from the frequency as in its released code.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels, 1))
        self.beta = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation, of the same shape."""
        return periodic(x, self.alpha.exp(), (self.beta.exp() + 1e-9).reciprocal())

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the activation of the next samples; there is nothing to remember."""
        return self(x), None


def periodic(x: Tensor, frequency: Tensor, height: Tensor) -> Tensor:
    """Return ``x + height sin(frequency x)^2``, with one temporary where nothing learns.

    Args:
        x: ``(B, C, T)``.
        frequency: ``(C, 1)``.
        height: ``(C, 1)``.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.dtype != height.dtype:
        return x + height * torch.sin(frequency * x).square()
    return torch.addcmul(x, (frequency * x).sin_().square_(), height)
