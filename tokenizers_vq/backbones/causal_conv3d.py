"""Causal 3D convolutions, normalisations that keep them causal, Haar cells with time.

Signals are ``(B, C, T, H, W)``. A convolution pads in front in time, with the first frame or with
zeros, so T frames give ``1 + (T - 1) / stride``. What normalises over time sees the future: group
normalisation here is over each frame by itself, except where published weights need the other.

Reference:
    Yu et al., Language Model Beats Diffusion: Tokenizer is Key to Visual Generation (MAGVIT-v2),
    2023, https://arxiv.org/abs/2310.05737, section 3.2 (causal 3D CNN);
    NVIDIA, Cosmos World Foundation Model Platform for Physical AI, 2025,
    https://arxiv.org/abs/2501.03575, section 4 (Haar cells, factorized convolutions).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.blocks import EPS

Size = tuple[int, int, int]
Lead = Literal["replicate", "zeros"]
NormKind = Literal["frame", "clip"]


class CausalConv3d(nn.Conv3d):
    """Convolution that sees this frame and those before; rows and columns are padded by zeros.

    Args:
        channels: channels in and out.
        kernel: taps in time, rows and columns.
        stride: likewise.
        lead: what is before the first frame: that frame again, or zeros.
        sides: pad rows and columns by half the kernel.
        bias: add one.

    Shapes:
        x (B, C_in, T, H, W) -> (B, C_out, 1 + floor((T - 1) / s_t), ...)
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: Size,
        stride: Size = (1, 1, 1),
        *,
        lead: Lead = "replicate",
        sides: bool = True,
        bias: bool = True,
    ) -> None:
        padding = (0, kernel[1] // 2, kernel[2] // 2) if sides else (0, 0, 0)
        super().__init__(*channels, kernel, stride=stride, padding=padding, bias=bias)
        self.lead, self.frames = lead, kernel[0] - 1

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved video."""
        if self.frames and self.lead == "zeros":
            x = F.pad(x, (0, 0, 0, 0, self.frames, 0))
        elif self.frames:
            x = torch.cat([x[:, :, :1].expand(-1, -1, self.frames, -1, -1), x], dim=2)
        return super().forward(x)


class GroupNorm3d(nn.GroupNorm):
    """Group normalisation of videos.

    Args:
        groups: of channels.
        channels: width.
        over: ``frame`` for each frame by itself; ``clip`` for all frames at once, which tells every
            frame of the future.
        affine: learn a gain and a bias per channel.

    Shapes:
        x (B, C, T, H, W) -> the same
    """

    def __init__(
        self, groups: int, channels: int, over: NormKind = "frame", affine: bool = True
    ) -> None:
        super().__init__(groups, channels, eps=EPS, affine=affine)
        self.over = over

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised video."""
        if self.over == "clip":
            return super().forward(x)
        frames = x.shape[2]
        y = super().forward(x.transpose(1, 2).flatten(0, 1))
        return y.reshape(x.shape[0], frames, *y.shape[1:]).transpose(1, 2)


def haar_cells(x: Tensor, patch: int) -> Tensor:
    """Fold cells of ``patch`` frames, rows and columns into channels by Haar wavelet steps.

    The first frame is a cell of its own: it is repeated in front. One step halves time, rows and
    columns by ``(a + b) / 2`` and ``(a - b) / 2``; bands follow each other with time slowest, all
    channels of a band together.

    Args:
        x: ``(B, C, 1 + m patch, H, W)``.
        patch: a power of two; 1 changes nothing.

    Returns:
        ``(B, patch**3 * C, 1 + m, H / patch, W / patch)``.
    """
    if patch > 1:
        x = torch.cat([x[:, :, :1].expand(-1, -1, patch - 1, -1, -1), x], dim=2)
    while patch > 1:
        bands = [x]
        for axis in (2, 3, 4):
            bands = [half for band in bands for half in _halves(band, axis)]
        x = torch.cat(bands, dim=1)
        patch //= 2
    return x


def from_haar_cells(x: Tensor, patch: int) -> Tensor:
    """Undo ``haar_cells``: ``(B, patch**3 * C, 1 + m, h, w)`` to ``(B, C, 1 + m patch, H, W)``."""
    step = patch
    while step > 1:
        bands = list(x.chunk(8, dim=1))
        for axis in (4, 3, 2):
            pairs = zip(bands[::2], bands[1::2], strict=True)
            bands = [_joined(low, high, axis) for low, high in pairs]
        x = bands[0]
        step //= 2
    return x[:, :, patch - 1 :]


def _halves(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    a, b = x.reshape(shape).unbind(axis + 1)
    return (a + b) / 2, (a - b) / 2


def _joined(low: Tensor, high: Tensor, axis: int) -> Tensor:
    return torch.stack([low + high, low - high], dim=axis + 1).flatten(axis, axis + 1)
