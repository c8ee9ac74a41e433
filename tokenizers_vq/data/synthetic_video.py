"""Generated videos of moving shapes, for tests and first runs."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.transforms import draw_generator
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec


class SyntheticVideo(SignalDataset):
    """Discs, bars and striped discs that move, turn and bounce in front of moving smooth light.

    Video ``i`` is a function of ``seed``, ``i``, ``frames`` and ``size`` alone and is the same in
    each epoch. Edges are smooth over a pixel, so motion below one pixel shows.

    Args:
        n: number of videos.
        frames: of each.
        size: side in pixels.
        seed: another seed gives other videos.

    Shapes:
        item ``(3, frames, size, size)`` float32 in [-1, 1]

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(self, n: int = 256, frames: int = 17, size: int = 32, seed: int = 0) -> None:
        if min(n, frames, size) < 1:
            raise ConfigError(
                "SyntheticVideo: expected n, frames and size of 1 or more; got "
                f"n={n}, frames={frames}, size={size}."
            )
        super().__init__([f"{index:08d}" for index in range(n)], SignalSpec("video"))
        self.frames, self.size, self.seed = frames, size, seed

    def item(self, index: int, epoch: int) -> Tensor:
        """Return video ``index``; ``epoch`` changes nothing."""
        return torch.from_numpy(self.video(index))

    def video(self, index: int) -> np.ndarray:
        """Return video ``index``, ``(3, T, H, W)`` float32."""
        generator = draw_generator(self.seed, 0, index)
        times = np.arange(self.frames)[:, None, None]
        rows, columns = np.mgrid[: self.size, : self.size] / self.size
        x = _light(generator, times, rows, columns)
        for _ in range(int(generator.integers(1, 4))):
            x = _with_shape(generator, x, times, (rows, columns), 1 / self.size)
        return x.astype(np.float32)

    def sha256(self) -> str:
        """Return the hex digest over the ids and samples of all videos; makes each of them."""
        digest = hashlib.sha256()
        for index, id_ in enumerate(self.ids):
            digest.update(id_.encode() + self.video(index).tobytes())
        return digest.hexdigest()


def _light(
    generator: np.random.Generator, times: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Return slow waves of colour, ``(3, T, H, W)``."""
    colours = []
    for _ in range(3):
        across, down = generator.uniform(-1, 1, 2)
        speed, phase = generator.uniform(-0.1, 0.1), generator.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * (across * columns + down * rows) + speed * times + phase)
        colours.append(generator.uniform(-0.5, 0.5) + generator.uniform(0.05, 0.3) * wave)
    return np.stack(colours)


def _with_shape(
    generator: np.random.Generator,
    x: np.ndarray,
    times: np.ndarray,
    place: tuple[np.ndarray, np.ndarray],
    pixel: float,
) -> np.ndarray:
    """Return the video with one more shape in front of it."""
    top, left = (_bounced(generator, times) for _ in range(2))
    angle = generator.uniform(0, np.pi) + generator.uniform(-0.1, 0.1) * times
    down, across = place[0] - top, place[1] - left
    down, across = (
        down * np.cos(angle) - across * np.sin(angle),
        down * np.sin(angle) + across * np.cos(angle),
    )
    size, kind = generator.uniform(0.12, 0.3), generator.integers(3)
    if kind == 1:
        outside = np.maximum(np.abs(down) - size / 2, np.abs(across) - size)
    else:
        outside = np.hypot(down, across) - size
    cover = np.clip(0.5 - outside / pixel, 0, 1)
    colour, other = generator.uniform(-1, 1, (2, 3, 1, 1, 1))
    if kind == 2:
        stripe = 0.5 + 0.5 * np.sin(2 * np.pi * across / (0.6 * size))
        colour = colour * stripe + other * (1 - stripe)
    return np.asarray(x * (1 - cover) + colour * cover)


def _bounced(generator: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Return a coordinate that moves steadily and turns round at 0 and 1."""
    path = generator.uniform(0, 1) + generator.uniform(-0.04, 0.04) * times
    return np.asarray(1 - np.abs(path % 2 - 1))
