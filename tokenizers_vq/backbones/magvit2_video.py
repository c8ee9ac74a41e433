"""The causal 3D CNN of Open-MAGVIT2, with norms that keep it causal, or with its own.

The published networks normalise over all frames, in residual blocks and by the statistics of all
latents, so every latent frame depends on the whole clip. That is ``norm: clip``. Ours, ``frame``,
takes the statistics of each frame, and of the latent frame it comes from, by itself.

Reference:
    Luo et al., Open-MAGVIT2, 2024, https://arxiv.org/abs/2409.04410, and its video tokenizer,
    after Yu et al., MAGVIT-v2, 2023, https://arxiv.org/abs/2310.05737, section 3.2.
    Differs: ``frame`` is ours; the variance of a single latent is 0, not undefined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Decoder, Encoder
from tokenizers_vq.backbones.blocks import EPS
from tokenizers_vq.backbones.causal_conv3d import CausalConv3d, GroupNorm3d, NormKind, Size
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec

GROUPS = 32
CUBE = (3, 3, 3)


class Magvit2VideoEncoder(Encoder):
    """Residual blocks by levels with strided convolutions between them.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        width: channels behind the first convolution.
        channel_mult: width of each level divided by ``width``.
        blocks: residual blocks per level, and in the middle.
        pools: strides in time, rows and columns behind each level but the last.
        norm: ``frame`` or ``clip``; the latter sees the future.
        groups: of the normalisations.

    Shapes:
        x (B, C, 1 + m s_t, H, W) -> z (B, 1 + m, H / s_h, W / s_w, D)

    Raises:
        ConfigError: there is not one pool between any two levels.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 4),
        blocks: int = 4,
        pools: Sequence[Sequence[int]] = ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
        norm: NormKind = "frame",
        groups: int = GROUPS,
    ) -> None:
        cells = _cells(pools, channel_mult)
        stride = _stride(cells)
        super().__init__(dim, stride, signal)
        self.first = (1, *stride[1:])
        self.conv_in = _conv(signal.channels, width, bias=False)
        self.down = nn.ModuleList()
        before = width
        for mult, cell in zip(channel_mult, [*cells, None], strict=True):
            layers = _blocks(before, mult * width, blocks, norm, groups)
            before = mult * width
            self.down.append(Level(layers, None if cell is None else _conv(before, before, cell)))
        self.mid = _blocks(before, before, blocks, norm, groups)
        self.norm_out = GroupNorm3d(groups, before, norm)
        self.conv_out = CausalConv3d((before, dim), (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return latents ``(B, t, h, w, D)`` of videos ``(B, C, T, H, W)``."""
        self.check_signal(x)
        h: Tensor = self.conv_in(x)
        for level in self.down:
            h = level(h)
        h = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        return h.movedim(1, -1)


class Magvit2VideoDecoder(Decoder):
    """The mirror of ``Magvit2VideoEncoder``; each level begins with a norm that the latents steer.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        width: channels of the narrowest level divided by its ``channel_mult``.
        channel_mult: width of each level divided by ``width``, the finest first.
        blocks: residual blocks per level, and in the middle.
        pools: factors in time, rows and columns in front of each level but the coarsest.
        norm: ``frame`` or ``clip``; the latter sees the future.
        groups: of the normalisations.

    Shapes:
        z_q (B, 1 + m, h, w, D) -> x_hat (B, C, 1 + m s_t, h s_h, w s_w)

    Raises:
        ConfigError: there is not one pool between any two levels.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 4),
        blocks: int = 4,
        pools: Sequence[Sequence[int]] = ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
        norm: NormKind = "frame",
        groups: int = GROUPS,
    ) -> None:
        cells = _cells(pools, channel_mult)
        stride = _stride(cells)
        super().__init__(dim, stride, signal)
        self.first = (1, *stride[1:])
        before = channel_mult[-1] * width
        self.conv_in = _conv(dim, before)
        self.mid = _blocks(before, before, blocks, norm, groups)
        adaptive, up = [], []
        for mult, cell in zip(channel_mult[::-1], [*cells[::-1], None], strict=True):
            adaptive.append(AdaptiveNorm3d(before, dim, norm, groups))
            layers = _blocks(before, mult * width, blocks, norm, groups)
            before = mult * width
            up.append(Level(layers, None if cell is None else Upsample(before, cell)))
        # the finest first, as in the encoder
        self.adaptive, self.up = nn.ModuleList(adaptive[::-1]), nn.ModuleList(up[::-1])
        self.norm_out = GroupNorm3d(groups, before, norm)
        self.conv_out = _conv(before, signal.channels)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        return self.conv_out.weight

    def forward(self, z_q: Tensor) -> Tensor:
        """Return videos ``(B, C, 1 + (t - 1) s_t, H, W)`` of latents ``(B, t, h, w, D)``."""
        self.check_latents(z_q)
        z_q = z_q.movedim(-1, 1)
        h: Tensor = self.mid(self.conv_in(z_q))
        for norm, level in zip(reversed(self.adaptive), reversed(self.up), strict=True):
            h = level(norm(h, z_q))
        x_hat: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return x_hat


class Level(nn.Module):
    """Residual blocks, then a change of resolution, if any."""

    def __init__(self, blocks: nn.Module, resample: nn.Module | None) -> None:
        super().__init__()
        self.blocks, self.resample = blocks, resample

    def forward(self, x: Tensor) -> Tensor:
        """Return the video at the next resolution."""
        h: Tensor = self.blocks(x)
        if self.resample is not None:
            h = self.resample(h)
        return h


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, beside a shortcut; convolutions have no bias."""

    def __init__(self, before: int, width: int, norm: NormKind, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm3d(groups, before, norm)
        self.conv1 = _conv(before, width, bias=False)
        self.norm2 = GroupNorm3d(groups, width, norm)
        self.conv2 = _conv(width, width, bias=False)
        same = before == width
        self.shortcut = (
            nn.Identity() if same else CausalConv3d((before, width), (1, 1, 1), bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, width, T, H, W)``."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        total: Tensor = self.shortcut(x) + h
        return total


class Upsample(nn.Module):
    """A convolution to a cell of channels, and the cell unfolded; of the first, one frame.

    Which one is the published choice: the first frame of the first cell.

    Args:
        width: channels.
        cell: frames, rows and columns.
    """

    def __init__(self, width: int, cell: Size) -> None:
        super().__init__()
        self.cell = cell
        self.conv = _conv(width, width * math.prod(cell))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, width, 1 + (T - 1) f_t, H f_h, W f_w)``."""
        t, h, w = self.cell
        y = self.conv(x)
        batch, _, frames, height, width = y.shape
        y = y.reshape(batch, t, h, w, -1, frames, height, width).permute(0, 4, 5, 1, 6, 2, 7, 3)
        y = y.reshape(batch, -1, frames * t, height * h, width * w)
        return y if t == 1 else torch.cat([y[:, :, :1], y[:, :, t:]], dim=2)


class AdaptiveNorm3d(nn.Module):
    """Normalisation with a gain and a bias that are affine in the statistics of the latents.

    Args:
        channels: width of x.
        dim: latent width D.
        norm: whose statistics: those of each frame and the latent frame it comes from, or all.
        groups: of the normalisation.
    """

    def __init__(self, channels: int, dim: int, norm: NormKind, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm3d(groups, channels, norm, affine=False)
        self.gamma, self.beta = nn.Linear(dim, channels), nn.Linear(dim, channels)

    def forward(self, x: Tensor, z_q: Tensor) -> Tensor:
        """Return ``x (B, C, T, H, W)``, steered by ``z_q (B, D, t, h, w)``."""
        clip = self.norm.over == "clip"
        flat = z_q.flatten(2)[:, :, None] if clip else z_q.flatten(3)
        flat = flat.transpose(1, 2).float()  # (B, t or 1, D, N)
        var, mean = torch.var_mean(flat, dim=-1, correction=min(1, flat.shape[-1] - 1))
        gain = self.gamma((var + EPS).sqrt().to(z_q.dtype)).mT
        bias = self.beta(mean.to(z_q.dtype)).mT
        if not clip:
            # frame j comes from the latent frame whose cell it is in
            factor = max(1, (x.shape[2] - 1) // max(1, z_q.shape[2] - 1))
            place = (torch.arange(x.shape[2], device=x.device) + factor - 1) // factor
            gain, bias = gain[:, :, place], bias[:, :, place]
        return torch.addcmul(bias[..., None, None], gain[..., None, None], self.norm(x))


def _conv(before: int, width: int, stride: Size = (1, 1, 1), *, bias: bool = True) -> CausalConv3d:
    return CausalConv3d((before, width), CUBE, stride, lead="zeros", bias=bias)


def _blocks(before: int, width: int, count: int, norm: NormKind, groups: int) -> nn.Sequential:
    widths = [before] + [width] * (count - 1)
    return nn.Sequential(*(ResBlock(one, width, norm, groups) for one in widths))


def _cells(pools: Sequence[Sequence[int]], channel_mult: Sequence[int]) -> list[Size]:
    """Return the pools as tuples.

    Raises:
        ConfigError: there is not one between any two levels, or one has not three numbers.
    """
    if len(pools) != len(channel_mult) - 1 or any(len(pool) != 3 for pool in pools):
        raise ConfigError(
            "magvit2_video: expected a pool of three numbers between any two levels; got "
            f"{[list(pool) for pool in pools]} for {len(channel_mult)} levels. "
            "Correct the backbone config."
        )
    return [(pool[0], pool[1], pool[2]) for pool in pools]


def _stride(cells: Sequence[Size]) -> Size:
    frames, rows, columns = (math.prod(cell[axis] for cell in cells) for axis in range(3))
    return frames, rows, columns
