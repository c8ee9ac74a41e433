"""Cosmos' causal video tokenizer: Haar cells, factorized convolutions, attention in the middle.

Every convolution is one over rows and columns and one over time; frames are normalised one by one
and attention in time sees the past, so the network is causal.

Reference:
    NVIDIA, Cosmos World Foundation Model Platform for Physical AI, 2025,
    https://arxiv.org/abs/2501.03575, section 4 and the published model code for the schedule.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Decoder, Encoder
from tokenizers_vq.backbones.causal_conv3d import (
    CausalConv3d,
    GroupNorm3d,
    from_haar_cells,
    haar_cells,
)
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec

POINT = (1, 1, 1)
Steps = list[tuple[bool, bool]]  # of every level but the last: halve or double space, time


class CosmosVideoEncoder(Encoder):
    """Haar cells, levels of residual blocks, attention inside frames and along time.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        width: channels behind the first convolution.
        channel_mult: width of each level divided by ``width``.
        blocks: residual blocks per level.
        z_channels: width in front of the last map.
        patch: side of the Haar cells in frames, rows and columns.
        stride: frames, and rows and columns, per latent position; powers of two times ``patch``.

    Shapes:
        x (B, C, 1 + m stride_t, H, W) -> z (B, 1 + m, H / stride_s, W / stride_s, D)

    Raises:
        ConfigError: the levels cannot make that stride.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 128,
        channel_mult: Sequence[int] = (2, 4, 4),
        blocks: int = 2,
        z_channels: int = 16,
        patch: int = 4,
        stride: Sequence[int] = (8, 8),
    ) -> None:
        time, space = stride
        super().__init__(dim, (time, space, space), signal)
        self.first, self.patch = (1, space, space), patch
        steps = down_steps(patch, time, space, len(channel_mult))
        self.conv_in = factorized(signal.channels * patch**3, width)
        self.levels = nn.ModuleList()
        before = width
        for mult, step in zip(channel_mult, [*steps, (False, False)], strict=True):
            self.levels.append(Level(before, mult * width, blocks, Down(mult * width, *step)))
            before = mult * width
        self.mid = middle(before)
        self.norm_out = GroupNorm3d(1, before)
        self.conv_out = factorized(before, z_channels)
        self.quant_conv = CausalConv3d((z_channels, dim), POINT)

    def forward(self, x: Tensor) -> Tensor:
        """Return latents ``(B, t, h, w, D)`` of videos ``(B, C, T, H, W)``."""
        self.check_signal(x)
        h = self.conv_in(haar_cells(x, self.patch))
        for level in self.levels:
            h = level(h)
        h = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        z: Tensor = self.quant_conv(h)
        return z.movedim(1, -1)


class CosmosVideoDecoder(Decoder):
    """The mirror of ``CosmosVideoEncoder``, with one block more per level.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        width: channels of the narrowest level divided by its ``channel_mult``.
        channel_mult: width of each level divided by ``width``, the finest first.
        blocks: residual blocks per level of the encoder.
        z_channels: width behind the first map.
        patch: side of the Haar cells.
        stride: frames, and rows and columns, per latent position.

    Shapes:
        z_q (B, 1 + m, h, w, D) -> x_hat (B, C, 1 + m stride_t, h stride_s, w stride_s)

    Raises:
        ConfigError: the levels cannot make that stride.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 128,
        channel_mult: Sequence[int] = (2, 4, 4),
        blocks: int = 2,
        z_channels: int = 16,
        patch: int = 4,
        stride: Sequence[int] = (8, 8),
    ) -> None:
        time, space = stride
        super().__init__(dim, (time, space, space), signal)
        self.first, self.patch = (1, space, space), patch
        steps = up_steps(patch, time, space, len(channel_mult))
        before = channel_mult[-1] * width
        self.post_quant_conv = CausalConv3d((dim, z_channels), POINT)
        self.conv_in = factorized(z_channels, before)
        self.mid = middle(before)
        levels = []
        for mult, step in zip(channel_mult[::-1], [*steps, (False, False)], strict=True):
            levels.append(Level(before, mult * width, blocks + 1, Up(mult * width, *step)))
            before = mult * width
        self.levels = nn.ModuleList(levels[::-1])  # the finest first, as in the encoder
        self.norm_out = GroupNorm3d(1, before)
        self.conv_out = factorized(before, signal.channels * patch**3)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        weight: Tensor = self.conv_out[1].weight  # type: ignore[assignment] # a convolution's
        return weight

    def forward(self, z_q: Tensor) -> Tensor:
        """Return videos ``(B, C, 1 + (t - 1) stride_t, H, W)`` of latents ``(B, t, h, w, D)``."""
        self.check_latents(z_q)
        h = self.mid(self.conv_in(self.post_quant_conv(z_q.movedim(-1, 1))))
        for level in reversed(self.levels):
            h = level(h)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return from_haar_cells(h, self.patch)


class Level(nn.Module):
    """Residual blocks, then a change of resolution."""

    def __init__(self, before: int, width: int, blocks: int, resample: Down | Up) -> None:
        super().__init__()
        widths = [before] + [width] * (blocks - 1)
        self.blocks = nn.Sequential(*(ResBlock(one, width) for one in widths))
        self.resample = resample if resample.active else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the video at the next resolution."""
        x = self.blocks(x)
        return x if self.resample is None else self.resample(x)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, beside a shortcut."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = GroupNorm3d(1, before), factorized(before, width)
        self.norm2, self.conv2 = GroupNorm3d(1, width), factorized(width, width)
        same = before == width
        self.shortcut = nn.Identity() if same else CausalConv3d((before, width), POINT)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, width, T, H, W)``."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        total: Tensor = self.shortcut(x) + h
        return total


class Attention(nn.Module):
    """One head over the places of each frame, or over this frame and those before at each place.

    Args:
        width: channels.
        along_time: the latter.
    """

    def __init__(self, width: int, along_time: bool) -> None:
        super().__init__()
        self.along_time = along_time
        self.norm = GroupNorm3d(1, width)
        self.q, self.k, self.v, self.proj_out = (
            CausalConv3d((width, width), POINT) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` and what attention adds."""
        y = self.norm(x)
        q, k, v = (self._rows(layer(y)) for layer in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=self.along_time)
        batch, channels, frames, height, width = x.shape
        if self.along_time:
            seen = seen.reshape(batch, height, width, frames, channels).permute(0, 4, 3, 1, 2)
        else:
            seen = seen.reshape(batch, frames, height, width, channels).movedim(-1, 1)
        added: Tensor = self.proj_out(seen)
        return x + added

    def _rows(self, x: Tensor) -> Tensor:
        """Return ``(sequences, 1, length, C)``."""
        if self.along_time:
            return x.permute(0, 3, 4, 2, 1).flatten(0, 2)[:, None]
        return x.movedim(1, -1).flatten(2, 3).flatten(0, 1)[:, None]


class Down(nn.Module):
    """Halve rows and columns, then time: a strided convolution plus the mean, then a map.

    Args:
        width: channels.
        space: halve rows and columns.
        time: halve time: 1 + 2 m frames become 1 + m.
    """

    def __init__(self, width: int, space: bool, time: bool) -> None:
        super().__init__()
        both, self.active = (width, width), space or time
        self.space = CausalConv3d(both, (1, 3, 3), (1, 2, 2), sides=False) if space else None
        self.time = CausalConv3d(both, (3, 1, 1), (2, 1, 1)) if time else None
        self.mix = CausalConv3d(both, POINT)

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller video."""
        if self.space is not None:
            x = F.pad(x, (0, 1, 0, 1))
            x = self.space(x) + F.avg_pool3d(x, (1, 2, 2))
        if self.time is not None:
            # the mean of pairs, the first frame with itself
            pairs = torch.cat([x[:, :, :1], x], dim=2)
            x = self.time(x) + F.avg_pool3d(pairs, (2, 1, 1))
        mixed: Tensor = self.mix(x)
        return mixed


class Up(nn.Module):
    """Double time, then rows and columns: copies plus a convolution of them, then a map.

    Args:
        width: channels.
        space: double rows and columns.
        time: double time: 1 + m frames become 1 + 2 m.
    """

    def __init__(self, width: int, space: bool, time: bool) -> None:
        super().__init__()
        both, self.active = (width, width), space or time
        self.time = CausalConv3d(both, (3, 1, 1)) if time else None
        self.space = CausalConv3d(both, (1, 3, 3)) if space else None
        self.mix = CausalConv3d(both, POINT)

    def forward(self, x: Tensor) -> Tensor:
        """Return the larger video."""
        if self.time is not None:
            x = x.repeat_interleave(2, dim=2)[:, :, 1:]
            x = self.time(x) + x
        if self.space is not None:
            x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
            x = self.space(x) + x
        mixed: Tensor = self.mix(x)
        return mixed


def factorized(before: int, width: int) -> nn.Sequential:
    """Return a convolution over rows and columns and one over time."""
    return nn.Sequential(
        CausalConv3d((before, width), (1, 3, 3)), CausalConv3d((width, width), (3, 1, 1))
    )


def middle(width: int) -> nn.Sequential:
    """Return the layers at the coarsest resolution."""
    return nn.Sequential(
        ResBlock(width, width),
        Attention(width, along_time=False),
        Attention(width, along_time=True),
        ResBlock(width, width),
    )


def down_steps(patch: int, time: int, space: int, levels: int) -> Steps:
    """Return what the levels of the encoder but the last halve: rows and columns, time.

    Raises:
        ConfigError: they cannot make that stride.
    """
    times, spaces = _halvings(patch, time, space, levels)
    return [(i < spaces, i < times) for i in range(levels - 1)]


def up_steps(patch: int, time: int, space: int, levels: int) -> Steps:
    """Return what the levels of the decoder but the last double, the coarsest first.

    Time is doubled from the second level on, and rows and columns with it, as in the published
    networks; where there is one more doubling of space, it comes first.

    Raises:
        ConfigError: they cannot make that stride.
    """
    times, spaces = _halvings(patch, time, space, levels)
    steps = []
    for level in range(levels - 1):
        doubles = 0 < level < times + 1
        steps.append((doubles or (level < spaces and spaces > times), doubles))
    return steps


def _halvings(patch: int, time: int, space: int, levels: int) -> tuple[int, int]:
    """Return how often time, and rows and columns, are halved behind the cells."""
    ratios = [stride // patch for stride in (time, space)]
    counts = [ratio.bit_length() - 1 for ratio in ratios]
    whole = all(n.bit_count() == 1 for n in (patch, *ratios)) and min(time, space) % patch == 0
    times, spaces = counts
    # the schedule of the decoder gives these and no others
    known = whole and spaces < levels and times in (spaces, spaces - 1)
    if not known or (times == spaces and times >= levels - 1 and times > 0):
        raise ConfigError(
            f"cosmos_video: expected strides that {levels} levels make of cells of {patch}: powers "
            f"of two, space as often as time or once more; got time {time}, space {space}. "
            "Correct the backbone config."
        )
    return times, spaces
