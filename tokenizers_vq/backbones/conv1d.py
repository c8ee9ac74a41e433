"""Convolutions along time with exact lengths, whole or in pieces.

Reference:
    Defossez et al., High Fidelity Neural Audio Compression, 2022,
    https://arxiv.org/abs/2210.13438, section 3.1, for the padding: L samples at stride s give
    ``ceil(L / s)`` positions, and these give ``ceil(L / s) * s`` samples back.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tokenizers_vq.backbones.streaming import State
from tokenizers_vq.errors import ConfigError

Pad = Literal["zeros", "reflect", "replicate"]
Norm = Literal["none", "weight", "group"]
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate"}


class Conv1d(nn.Module):
    """Convolution that pads so that L samples give ``ceil(L / stride)`` positions.

    Args:
        channels: channels in and out.
        kernel: taps.
        stride: samples per position; the kernel has at least as many taps.
        dilation: distance of taps.
        groups: of channels.
        causal: see the past only: all padding but what completes the last position is in front.
        pad: what is beyond the ends.
        norm: ``weight`` for weight normalisation, ``group`` for one group over channels and time.
        bias: add one.

    Shapes:
        x (B, C_in, L) -> (B, C_out, ceil(L / stride))

    Raises:
        ConfigError: the kernel is shorter than the stride.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        causal: bool = False,
        pad: Pad = "zeros",
        norm: Norm = "none",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.span = (kernel - 1) * dilation + 1
        if self.span < stride:
            raise ConfigError(
                f"Conv1d: expected a kernel of at least the stride {stride}; got {self.span}. "
                "Samples between kernels would be lost."
            )
        self.stride, self.causal, self.pad = stride, causal, pad
        conv = nn.Conv1d(
            *channels, kernel, stride=stride, dilation=dilation, groups=groups, bias=bias
        )
        self.conv = parametrizations.weight_norm(conv) if norm == "weight" else conv
        self.norm = nn.GroupNorm(1, channels[1]) if norm == "group" else None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C_out, ceil(L / stride))`` of ``x (B, C_in, L)``."""
        around = self.span - self.stride
        right = 0 if self.causal else around // 2
        extra = -x.shape[-1] % self.stride
        y: Tensor = self.conv(padded(x, around - right, right + extra, self.pad))
        return y if self.norm is None else self.norm(y)

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the positions that ``x (B, C_in, n)`` decides, and the state.

        Raises:
            ConfigError: the convolution sees the future, or normalises over time.
        """
        if not self.causal or self.norm is not None:
            raise ConfigError(
                "stream: expected causal convolutions without normalisation over time; got "
                "another one. Encode whole signals, or choose a causal backbone."
            )
        started, held = state or (False, x[..., :0])
        held = torch.cat([held, x], dim=-1)
        around = self.span - self.stride
        if not started:
            # a reflection needs the samples it mirrors
            enough = {"zeros": -1, "reflect": around, "replicate": 0}[self.pad]
            if held.shape[-1] <= enough and last:
                return (self.forward(held) if held.shape[-1] else self._none(x)), (True, held)
            if held.shape[-1] <= enough:
                return self._none(x), (False, held)
            held = padded(held, around, 0, self.pad)
        if last:
            held = padded(held, 0, -(held.shape[-1] - around) % self.stride, self.pad)
        count = max(0, (held.shape[-1] - self.span) // self.stride + 1)
        if count == 0:
            return self._none(x), (True, held)
        y: Tensor = self.conv(held[..., : (count - 1) * self.stride + self.span])
        return y, (True, held[..., count * self.stride :])

    def _none(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], self.conv.out_channels, 0)


class ConvTranspose1d(nn.Module):
    """Transposed convolution that gives ``stride`` samples per position.

    Args:
        channels: channels in and out.
        kernel: taps, at least as many as the stride.
        stride: samples per position.
        groups: of channels.
        causal: a sample depends on the past only: what overhangs is cut at the end.
        norm: as in ``Conv1d``; weight normalisation is per input channel.
        bias: add one.

    Shapes:
        x (B, C_in, T) -> (B, C_out, T * stride)

    Raises:
        ConfigError: the kernel is shorter than the stride.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int,
        stride: int,
        *,
        groups: int = 1,
        causal: bool = False,
        norm: Norm = "none",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if kernel < stride:
            raise ConfigError(
                f"ConvTranspose1d: expected a kernel of at least the stride {stride}; got "
                f"{kernel}. There would be gaps."
            )
        self.stride, self.over, self.causal = stride, kernel - stride, causal
        conv = nn.ConvTranspose1d(*channels, kernel, stride=stride, groups=groups, bias=bias)
        self.conv = parametrizations.weight_norm(conv) if norm == "weight" else conv
        self.norm = nn.GroupNorm(1, channels[1]) if norm == "group" else None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C_out, T * stride)`` of ``x (B, C_in, T)``."""
        y: Tensor = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        right = self.over if self.causal else self.over // 2
        return y[..., self.over - right : y.shape[-1] - right]

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the samples that ``x (B, C_in, n)`` decides, and the overhang.

        Raises:
            ConfigError: the convolution sees the future, or normalises over time.
        """
        if not self.causal or self.norm is not None:
            raise ConfigError(
                "stream: expected causal convolutions without normalisation over time; got "
                "another one. Decode whole signals, or choose a causal backbone."
            )
        if not x.shape[-1]:
            return x.new_zeros(x.shape[0], self.conv.out_channels, 0), state
        bias = self.conv.bias
        y: Tensor = self.conv(x)
        if bias is not None:
            y = y - bias[:, None]
        if state is not None:
            y = torch.cat([y[..., : self.over] + state, y[..., self.over :]], dim=-1)
        count = x.shape[-1] * self.stride
        done, over = y[..., :count], y[..., count:]
        return (done if bias is None else done + bias[:, None]), over


class LSTM(nn.Module):
    """Recurrent layers with a skip connection.

    Args:
        channels: width C.
        layers: how many.
        bidirectional: also from the end; doubles the width of the output.

    Shapes:
        x (B, C, T) -> (B, C, T), or (B, 2 C, T)
    """

    def __init__(self, channels: int, layers: int, bidirectional: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        """Return the skip connection plus the recurrent output."""
        y: Tensor = self.lstm(x.permute(2, 0, 1))[0]
        return y.permute(1, 2, 0) + (x.repeat(1, 2, 1) if self.lstm.bidirectional else x)

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the output of the next samples ``(B, C, n)`` and the cells.

        Raises:
            ConfigError: the layers run from the end too.
        """
        if self.lstm.bidirectional:
            raise ConfigError(
                "stream: expected recurrent layers that run forward; got bidirectional ones. "
                "Encode whole signals, or choose a causal backbone."
            )
        if not x.shape[-1]:
            return x, state
        y, state = self.lstm(x.permute(2, 0, 1), state)
        return y.permute(1, 2, 0) + x, state


def padded(x: Tensor, left: int, right: int, mode: Pad) -> Tensor:
    """Return ``x (B, C, L)`` with samples added at both ends.

    A reflection of a signal that is too short for it is that of the signal with zeros behind it,
    without those zeros.
    """
    if not left and not right:
        return x
    if mode != "reflect":
        return F.pad(x, (left, right), MODES[mode])
    missing = max(0, max(left, right) + 1 - x.shape[-1])
    if not missing:  # no samples to add would still be a copy
        return F.pad(x, (left, right), "reflect")
    y = F.pad(F.pad(x, (0, missing)), (left, right), "reflect")
    return y[..., : y.shape[-1] - missing]
