"""The layers of the DAC family of audio networks: padded as published, whole signals only."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tokenizers_vq.backbones.antialias import AntiAliased
from tokenizers_vq.backbones.snake import Snake, SnakeBeta

HEAD_WIDTH = 64  # channels per head of the windowed attention
ROTARY_BASE = 10000.0


class Unit(nn.Sequential):
    """Layers whose output is added to their input."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus what the layers make of it, of the same shape."""
        y = x
        for layer in self:
            y = layer(y)
        return x + y


class Noise(nn.Module):
    """Adds noise, the same in all channels, with a loudness per channel that the signal sets.

    Args:
        channels: C.
        norm: whether the map to the loudness has weight normalisation.

    Shapes:
        x (B, C, T) -> (B, C, T)
    """

    def __init__(self, channels: int, norm: bool) -> None:
        super().__init__()
        self.linear = conv(channels, channels, 1, norm=norm, bias=False)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return ``x`` and noise from ``generator``; None for torch's global one."""
        place = x.device if generator is None else generator.device
        shape = (x.shape[0], 1, x.shape[2])
        noise = torch.randn(shape, generator=generator, device=place, dtype=x.dtype)
        total: Tensor = x + noise.to(x.device) * self.linear(x)
        return total


class Stage(nn.Sequential):
    """Layers one after the other, some of which draw noise."""

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the output ``(B, C, T)`` of the layers."""
        for layer in self:
            x = layer(x, generator) if isinstance(layer, Noise) else layer(x)
        return x


class WindowAttention(nn.Module):
    """Self-attention within windows of the sequence that do not overlap; the last may be shorter.

    Args:
        channels: C, in heads of 64 channels.
        window: positions in a window.

    Shapes:
        x (B, C, T) -> (B, C, T)

    Reference:
        Su et al., RoFormer, 2021, https://arxiv.org/abs/2104.09864, eq. 34, with the two halves of
        a head's channels as the pairs.
    """

    rates: Tensor

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.heads = max(1, channels // HEAD_WIDTH)
        self.norm = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels, bias=False)
        width = channels // self.heads
        rates = ROTARY_BASE ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        self.register_buffer("rates", rates.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x (B, C, T)`` plus what the positions of its windows say to each other."""
        qkv = self.to_qkv(self.norm(x.mT))
        whole = x.shape[2] // self.window * self.window
        parts = [
            self._attend(part, min(self.window, part.shape[1]))
            for part in (qkv[:, :whole], qkv[:, whole:])
            if part.shape[1]
        ]
        y: Tensor = self.to_out(torch.cat(parts, dim=1))
        return x + y.mT

    def _attend(self, qkv: Tensor, window: int) -> Tensor:
        """Return ``(B, T, C)`` of ``qkv (B, T, 3 C)``, T whole windows."""
        batch, length, width = qkv.shape
        shape = (batch * (length // window), window, 3, self.heads, width // 3 // self.heads)
        q, k, v = qkv.reshape(shape).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(self._rotated(q), self._rotated(k), v)
        return y.transpose(1, 2).reshape(batch, length, width // 3)

    def _rotated(self, x: Tensor) -> Tensor:
        """Return ``x (N, heads, window, c)`` turned by its place in the window."""
        place = torch.arange(x.shape[2], device=x.device, dtype=torch.float32)
        angles = torch.outer(place, self.rates).to(x.dtype)
        sine, cosine = angles.sin(), angles.cos()
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)


def conv(
    before: int,
    after: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    norm: bool = True,
    bias: bool = True,
) -> nn.Module:
    """Return a convolution that gives one position per ``stride`` samples of a whole number.

    Zeros are beyond both ends, ``ceil(((kernel - 1) dilation + 1 - stride) / 2)`` of them.

    Args:
        before: channels in.
        after: channels out.
        kernel: taps.
        stride: samples per position.
        dilation: distance of taps.
        groups: of channels.
        norm: weight normalisation.
        bias: add one.
    """
    padding = math.ceil(((kernel - 1) * dilation + 1 - stride) / 2)
    layer = nn.Conv1d(
        before, after, kernel, stride, padding, dilation, groups=groups, bias=bias
    )  # fmt: skip
    return _started(layer, norm)


def up_conv(before: int, after: int, stride: int, *, whole: bool, norm: bool) -> nn.Module:
    """Return a transposed convolution of ``2 stride`` taps.

    Args:
        before: channels in.
        after: channels out.
        stride: samples per position.
        whole: with an odd stride, T positions give ``stride T`` samples and not one less.
        norm: weight normalisation.
    """
    extra = stride % 2 if whole else 0
    layer = nn.ConvTranspose1d(
        before, after, 2 * stride, stride, math.ceil(stride / 2), output_padding=extra
    )
    return _started(layer, norm)


def unit(channels: int, dilation: int, activation: str, groups: int, norm: bool) -> Unit:
    """Return a residual unit: activation, 7 dilated taps, activation, 1 tap."""
    return Unit(
        activate(channels, activation),
        conv(channels, channels, 7, dilation=dilation, groups=groups, norm=norm),
        activate(channels, activation),
        conv(channels, channels, 1, norm=norm),
    )


def activate(channels: int, activation: str) -> nn.Module:
    """Return ``snake``, or ``snake_beta`` between its filters."""
    return Snake(channels) if activation == "snake" else AntiAliased(SnakeBeta(channels))


def _started(layer: nn.Conv1d | nn.ConvTranspose1d, norm: bool) -> nn.Module:
    """Return the layer with the starting weights of the family."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return parametrizations.weight_norm(layer) if norm else layer
