"""The transformer of pictures for videos: every token sees its own frame and those before it.

A frame is cut into squares as a picture is, and a picture is a video of one frame: with the weights
of ``vit2d`` and positions in time that start at 0, the first frame comes out as from ``vit2d``.

Reference:
    Zhao et al., Image and Video Tokenization with Binary Spherical Quantization, 2024,
    https://arxiv.org/abs/2406.07548, section 4.2 (the block-wise causal mask).
    Differs: the mask really forbids. The released code adds 1 to a logit where it means to forbid,
    so that its frames see those after them. Other sizes of frames by interpolated positions, and
    streams, are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.cnn2d_plan import rescale
from tokenizers_vq.backbones.streaming import State
from tokenizers_vq.backbones.transformer import Transformer, patchify, unpatchify
from tokenizers_vq.backbones.vit2d import ViT2dDecoder, ViT2dEncoder
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.framing import pad_to_stride
from tokenizers_vq.types import SignalSpec


class ViTVideoEncoder(ViT2dEncoder):
    """``ViT2dEncoder`` over the squares of all frames so far, with a position in time added.

    Args:
        dim: latent width D.
        signal: what the pixels mean.
        size: side of the frames that the positions are for; others interpolate them.
        patch: side of the squares, a divisor of ``size``.
        frames: the most frames of a video.
        width: width of the transformer.
        layers: number of blocks.
        heads: attention heads per block.
        value_range: range of samples the network works in.
        hidden: width inside the MLPs; None for four times ``width``.

    Shapes:
        x (B, C, T, H, W) -> z (B, T, H / patch, W / patch, D), T at most ``frames``

    Raises:
        ConfigError: as ``ViT2dEncoder``, or ``frames`` is below 1.
        ShapeError: ``x`` has another shape, or more frames.

    Example:
        >>> options = {"size": 16, "frames": 4, "width": 32, "layers": 1, "heads": 2}
        >>> encoder = ViTVideoEncoder(8, SignalSpec("video"), **options)
        >>> encoder(torch.zeros(1, 3, 3, 16, 16)).shape
        torch.Size([1, 3, 2, 2, 8])
    """

    leading = (1,)

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        size: int = 256,
        patch: int = 8,
        frames: int = 17,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        value_range: Sequence[float] = (-1.0, 1.0),
        hidden: int | None = None,
    ) -> None:
        super().__init__(dim, signal, size, patch, width, layers, heads, value_range, hidden)
        self.size = None
        self.times = _times(frames, self.positions.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, T, h, w, D)`` of videos ``(B, C, T, H, W)``."""
        self.check_signal(x)
        return self.step(x, None, True)[0]

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the latents of the next frames ``(B, C, m, H, W)``, and the state.

        Raises:
            ShapeError: there are more frames than positions in time.
        """
        patch = self.stride[-1]
        batch, frames = x.shape[0], x.shape[2]
        if not frames:
            sides = (-(-n // patch) for n in x.shape[3:])
            return x.new_zeros(batch, 0, *sides, self.dim), state
        x = rescale(pad_to_stride(x, self.stride), self.signal.value_range, self.value_range)
        patches = patchify(x.transpose(1, 2).flatten(0, 1), patch)  # (B m, h, w, C patch^2)
        h = self.embed(patches.reshape(batch, frames, *patches.shape[1:]))
        h, state = attend(self, h, state)
        z: Tensor = self.to_latent(h)
        return z, state


class ViTVideoDecoder(ViT2dDecoder):
    """``ViT2dDecoder`` over the latents of all frames so far, with a position in time added.

    Args:
        dim: latent width D.
        signal: what the pixels mean.
        size: side of the frames that the positions are for; others interpolate them.
        patch: side of the squares, a divisor of ``size``.
        frames: the most frames of a video.
        width: width of the transformer.
        layers: number of blocks.
        heads: attention heads per block.
        value_range: range of samples the network works in.
        head_width: width in front of the pixels; None for four times ``width``.
        hidden: width inside the MLPs; None for four times ``width``.

    Shapes:
        z_q (B, T, h, w, D) -> x_hat (B, C, T, h patch, w patch), not clamped

    Raises:
        ConfigError: as ``ViT2dDecoder``, or ``frames`` is below 1.
        ShapeError: ``z_q`` has another shape, or more frames.
    """

    leading = (1,)

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int,
        signal: SignalSpec,
        size: int = 256,
        patch: int = 8,
        frames: int = 17,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        value_range: Sequence[float] = (-1.0, 1.0),
        *,
        head_width: int | None = None,
        hidden: int | None = None,
    ) -> None:
        super().__init__(
            dim, signal, size, patch, width, layers, heads, value_range, head_width, hidden
        )
        self.size = None
        self.times = _times(frames, self.positions.shape[1])

    def forward(self, z_q: Tensor) -> Tensor:
        """Return videos ``(B, C, T, H, W)`` of latents ``(B, T, h, w, D)``."""
        self.check_latents(z_q)
        return self.step(z_q, None, True)[0]

    def check_latents(self, z_q: Tensor) -> None:
        """Raise ``ShapeError`` unless ``z_q`` is ``(B, t, h, w, D)``."""
        super(ViT2dDecoder, self).check_latents(z_q)

    def step(self, z_q: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the next frames ``(B, C, m, H, W)`` of latents ``(B, m, h, w, D)``, and the state.

        Raises:
            ShapeError: there are more frames than positions in time.
        """
        patch = self.stride[-1]
        batch, frames, *grid = z_q.shape[:4]
        if not frames:
            sides = (n * patch for n in grid)
            return z_q.new_zeros(batch, self.signal.channels, 0, *sides), state
        h, state = attend(self, self.from_latent(z_q), state)
        rows: Tensor = self.to_pixels(self.head(h).tanh())
        pixels = unpatchify(rows.flatten(0, 1), patch)  # (B m, C, H, W)
        x_hat = pixels.reshape(batch, frames, *pixels.shape[1:]).transpose(1, 2)
        return rescale(x_hat, self.value_range, self.signal.value_range), state


def attend(part: Any, h: Tensor, state: State) -> tuple[Tensor, State]:
    """Return the rows of the next frames ``(B, m, h, w, W)`` behind the transformer, and the state.

    Args:
        part: an encoder or decoder with ``positions``, ``times`` and ``transformer``.
        h: the rows in front of it.
        state: how many frames there were, and the keys and values of all blocks; None for none.

    Raises:
        ShapeError: there are more frames than positions in time.
    """
    seen, past = state or (0, None)
    batch, frames, height, width, channels = h.shape
    if seen + frames > len(part.times):
        raise ShapeError(
            f"{type(part).__name__}: expected at most {len(part.times)} frames; got "
            f"{seen + frames}. Cut the video, or set frames in the backbone config."
        )
    h = h + placed(part.positions, (height, width)) + part.times[seen : seen + frames, None, None]
    mask = block_causal(frames, seen, height * width).to(h.device) if frames > 1 else None
    transformer: Transformer = part.transformer
    out, past = transformer.step(h.flatten(1, 3), past, mask)
    return out.reshape(batch, frames, height, width, channels), (seen + frames, past)


def block_causal(frames: int, seen: int, rows: int) -> Tensor:
    """Return who may look at whom, bool ``(frames * rows, (seen + frames) * rows)``.

    Args:
        frames: the next frames, whose rows look.
        seen: frames before them.
        rows: per frame; a row sees those of its own frame and of every frame before it.
    """
    own = torch.arange(seen, seen + frames).repeat_interleave(rows)
    other = torch.arange(seen + frames).repeat_interleave(rows)
    return other[None] <= own[:, None]


def placed(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return positions ``(h, w, W)`` of those of a square, ``(n * n, W)``, bicubic if need be."""
    side = round(len(positions) ** 0.5)
    square = positions.reshape(side, side, -1)
    if grid == (side, side):
        return square
    planes = square.movedim(-1, 0)[None]
    resized: Tensor = F.interpolate(planes, grid, mode="bicubic", align_corners=False)
    return resized[0].movedim(0, -1)


def _times(frames: int, width: int) -> nn.Parameter:
    if frames < 1:
        raise ConfigError(
            f"vit_video: expected frames of 1 or more; got {frames}. Correct the backbone config."
        )
    return nn.Parameter(torch.zeros(frames, width))
