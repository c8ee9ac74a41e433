"""What causal video networks share: frames that come in one first and then in groups.

The first frame alone is a latent frame, and so is every group of ``f_t`` frames after it: 1 + m f_t
frames are 1 + m latent frames, and a picture is a video of one frame. Layers work on ``(B, T, H, W,
C)`` and may have ``step(x, state, last)`` as in ``backbones/streaming.py``, with time second.

Pooling of tokens between stages is what is known of MambaVideo's hierarchy; that it is a linear map
of what space-to-depth gives, with the first frame repeated in front, is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokenizers_vq.backbones.base import Decoder, Encoder
from tokenizers_vq.backbones.streaming import State
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.framing import pad_to_stride
from tokenizers_vq.types import SignalSpec

Pool = tuple[int, int, int]


class CausalPool(nn.Module):
    """Make one token of each cell of ``(f_t, f_h, f_w)`` tokens, the first frame in cells alone.

    Args:
        channels: channels in and out.
        pool: frames, rows and columns of a cell.

    Shapes:
        x (B, 1 + m f_t, H, W, C_in) -> (B, 1 + m, H / f_h, W / f_w, C_out)
    """

    def __init__(self, channels: tuple[int, int], pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.linear = nn.Linear(channels[0] * math.prod(pool), channels[1])

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled tokens."""
        return self._pooled(_led(x, self.pool[0]))

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the tokens that the next frames decide, and the frames of a cell begun."""
        if state is None and not x.shape[1]:
            return self._pooled(x), None
        x = _led(x, self.pool[0]) if state is None else torch.cat([state, x], dim=1)
        whole = x.shape[1] - x.shape[1] % self.pool[0]
        return self._pooled(x[:, :whole]), x[:, whole:]

    def _pooled(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.linear(to_cells(x, self.pool))
        return pooled


class CausalUnpool(nn.Module):
    """Make a cell of ``(f_t, f_h, f_w)`` tokens of each token; of the first, its last frame only.

    Args:
        channels: channels in and out.
        pool: frames, rows and columns of a cell.

    Shapes:
        x (B, 1 + m, h, w, C_in) -> (B, 1 + m f_t, h f_h, w f_w, C_out)
    """

    def __init__(self, channels: tuple[int, int], pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.linear = nn.Linear(channels[0], channels[1] * math.prod(pool))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens of all cells."""
        return from_cells(self.linear(x), self.pool)[:, self.pool[0] - 1 :]

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the tokens of the next cells, and whether there was one."""
        y = from_cells(self.linear(x), self.pool)
        if state is None and x.shape[1]:
            y = y[:, self.pool[0] - 1 :]
        return y, state or (True if x.shape[1] else None)


class VideoEncoder(Encoder):
    """A causal encoder of videos, whole or frame by frame.

    A subclass has ``layers``, from ``(B, T, H, W, C)`` to latents, with ``step``.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        pools: cells of all stages, the finest first.

    Raises:
        ConfigError: the signal is no video, or there is no cell.
    """

    layers: nn.Module

    def __init__(self, dim: int, signal: SignalSpec, pools: Sequence[Pool]) -> None:
        stride = total_stride(pools, type(self).__name__)
        super().__init__(dim, stride, signal)
        self.first = (1, *stride[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Return latents ``(B, t, h, w, D)`` of videos ``(B, C, T, H, W)``."""
        self.check_signal(x)
        z: Tensor = self.layers(x.movedim(1, -1))
        return z

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the latents that the next frames ``(B, C, m, H, W)`` decide, and the state.

        Frames that do not fill the last position are completed by repeating the last one, as
        ``frame`` does with a whole video, and rows and columns likewise.
        """
        seen, held, inner = state or (0, None, None)
        x = pad_to_stride(x, (1, *self.stride[1:])) if x.shape[2] else self._none(x)
        seen += x.shape[2]
        held = x[:, :, -1:] if x.shape[2] else held
        if last and held is not None:
            missing = (1 - seen) % self.stride[0]
            x = torch.cat([x, held.expand(-1, -1, missing, -1, -1)], dim=2) if missing else x
        run: Any = self.layers
        z, inner = run.step(x.movedim(1, -1), inner, last)
        return z, (seen, held, inner)

    def _none(self, x: Tensor) -> Tensor:
        sides = (-(-n // step) * step for n, step in zip(x.shape[3:], self.stride[1:], strict=True))
        return x.new_zeros(*x.shape[:3], *sides)


class VideoDecoder(Decoder):
    """A causal decoder of videos, whole or frame by frame.

    A subclass has ``layers``, from latents to ``(B, T, H, W, C)``, with ``step``.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        pools: cells of all stages, the finest first.

    Raises:
        ConfigError: the signal is no video, or there is no cell.
    """

    layers: nn.Module

    def __init__(self, dim: int, signal: SignalSpec, pools: Sequence[Pool]) -> None:
        stride = total_stride(pools, type(self).__name__)
        super().__init__(dim, stride, signal)
        self.first = (1, *stride[1:])

    def forward(self, z_q: Tensor) -> Tensor:
        """Return videos ``(B, C, 1 + (t - 1) f_t, H, W)`` of latents ``(B, t, h, w, D)``."""
        self.check_latents(z_q)
        x_hat: Tensor = self.layers(z_q)
        return x_hat.movedim(-1, 1)

    def step(self, z_q: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the frames ``(B, C, m, H, W)`` of the next latents, and the state."""
        run: Any = self.layers
        x_hat, state = run.step(z_q, state, last)
        return x_hat.movedim(-1, 1), state


class VideoChain(nn.Sequential):
    """Layers one after the other; those without ``step`` look at one frame at a time."""

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the outputs that the next frames ``(B, n, H, W, C)`` decide, and the state."""
        after = []
        for layer, before in zip(self, state or (None,) * len(self), strict=True):
            run: Any = getattr(layer, "step", None)
            x, now = (layer(x), None) if run is None else run(x, before, last)
            after.append(now)
        return x, tuple(after)


def to_cells(x: Tensor, pool: Pool) -> Tensor:
    """Return ``(B, T / f_t, H / f_h, W / f_w, f_t f_h f_w C)`` of ``x (B, T, H, W, C)``."""
    batch, frames, height, width, channels = x.shape
    t, h, w = pool
    cells = x.reshape(batch, frames // t, t, height // h, h, width // w, w, channels)
    return cells.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


def from_cells(x: Tensor, pool: Pool) -> Tensor:
    """Return what ``to_cells`` made ``x`` of."""
    batch, frames, height, width, inside = x.shape
    t, h, w = pool
    channels = inside // (t * h * w)
    cells = x.reshape(batch, frames, height, width, t, h, w, channels)
    cells = cells.permute(0, 1, 4, 2, 5, 3, 6, 7)
    return cells.reshape(batch, frames * t, height * h, width * w, channels)


def total_stride(pools: Sequence[Pool], where: str) -> tuple[int, ...]:
    """Return frames, rows and columns per latent position.

    Raises:
        ConfigError: there is no cell, or one that is not three numbers of at least 1.
    """
    if not pools or any(len(pool) != 3 or min(pool) < 1 for pool in pools):
        raise ConfigError(
            f"{where}: expected pools of three numbers of at least 1: frames, rows, columns; got "
            f"{[list(pool) for pool in pools]}. Correct the backbone config."
        )
    return tuple(math.prod(pool[axis] for pool in pools) for axis in range(3))


def _led(x: Tensor, frames: int) -> Tensor:
    """Return ``x (B, T, H, W, C)`` with its first frame ``frames`` times."""
    if frames == 1:
        return x
    return torch.cat([x[:, :1].expand(-1, frames - 1, -1, -1, -1), x], dim=1)
