"""Activations without the frequencies that they would fold back.

Reference:
    Karras et al., Alias-Free Generative Adversarial Networks, 2021,
    https://arxiv.org/abs/2106.12423, section 3.1 and appendix C (Kaiser windows, eq. 9-10);
    Lee et al., BigVGAN, 2022, https://arxiv.org/abs/2206.04658, section 3.3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AntiAliased(nn.Module):
    """An activation on twice the samples, between two low-pass filters.

    Args:
        act: works on each channel by itself.
        taps: of both filters, a multiple of 4.

    Shapes:
        x (B, C, T) -> (B, C, T)
    """

    filter: Tensor

    def __init__(self, act: nn.Module, taps: int = 12) -> None:
        super().__init__()
        self.act = act
        self.register_buffer("filter", low_pass(0.25, 0.3, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation, of the same shape; the ends of the signal are repeated."""
        return self._down(self.act(self._up(x)))

    def _up(self, x: Tensor) -> Tensor:
        """Return ``(B, C, 2 T)``: the filter over samples with zeros between, times 2."""
        batch, channels, length = x.shape
        half = self.filter.shape[-1] // 2
        # the samples at odd places see the even taps, and the other way round
        phases = 2 * self.filter.view(half, 2).flip(0).T[:, None]
        rows = F.pad(x.reshape(batch * channels, 1, length), (half // 2, half // 2), "replicate")
        odd, even = F.conv1d(rows, phases.to(x.dtype)).unbind(1)
        return torch.stack([even[:, :-1], odd[:, 1:]], -1).view(batch, channels, -1)

    def _down(self, x: Tensor) -> Tensor:
        """Return every other sample ``(B, C, T)`` of the filtered ``x (B, C, 2 T)``."""
        batch, channels, length = x.shape
        half = self.filter.shape[-1] // 2
        rows = F.pad(x.reshape(batch * channels, 1, length), (half - 1, half), "replicate")
        y = F.conv1d(rows, self.filter.to(x.dtype)[None, None], stride=2)
        return y.view(batch, channels, -1)


def low_pass(cutoff: float, width: float, taps: int) -> Tensor:
    """Return a windowed sinc of sum 1, ``(taps,)`` float32.

    Args:
        cutoff: where it lets half through, in cycles per sample, up to 0.5.
        width: half of the transition, in cycles per sample.
        taps: an even number.
    """
    half = taps // 2
    attenuation = 2.285 * (half - 1) * math.pi * 4 * width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
    time = torch.arange(-half, half, dtype=torch.float64) + 0.5
    response = window * torch.sinc(2 * cutoff * time)
    return (response / response.sum()).float()
