"""Generated pictures with the structure of photos, for tests and first runs."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.transforms import draw_generator, image_to_signal
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec


class SyntheticImages(SignalDataset):
    """Pictures of smooth light, shapes, stripes, fine noise and pen strokes.

    Picture ``i`` is a function of ``seed``, ``i`` and ``size`` alone and is the same in each epoch.

    Args:
        n: number of pictures.
        size: side in pixels.
        seed: another seed gives other pictures.

    Shapes:
        item ``(3, size, size)`` float32 in [-1, 1]

    Raises:
        ConfigError: ``n`` or ``size`` is below 1.
    """

    def __init__(self, n: int = 256, size: int = 64, seed: int = 0) -> None:
        if n < 1 or size < 1:
            raise ConfigError(
                f"SyntheticImages: expected n and size of 1 or more; got n={n}, size={size}."
            )
        super().__init__([f"{index:08d}" for index in range(n)], SignalSpec("image"))
        self.size, self.seed = size, seed

    def item(self, index: int, epoch: int) -> Tensor:
        """Return picture ``index``; ``epoch`` changes nothing."""
        return image_to_signal(self.picture(index))

    def picture(self, index: int) -> Image.Image:
        """Return picture ``index`` as 8-bit RGB."""
        generator = draw_generator(self.seed, 0, index)
        image = _light(generator, self.size)
        for _ in range(int(generator.integers(2, 6))):
            _add_shape(image, generator)
        image = _add_grain(image, generator)
        if generator.random() < 0.5:
            _add_strokes(image, generator)
        return image

    def sha256(self) -> str:
        """Return the hex digest over the ids and pixels of all pictures; draws each of them."""
        digest = hashlib.sha256()
        for index, id_ in enumerate(self.ids):
            digest.update(id_.encode() + self.picture(index).tobytes())
        return digest.hexdigest()


def _light(generator: np.random.Generator, size: int) -> Image.Image:
    """Return band-limited colour noise: a few random colours, enlarged smoothly to gradients."""
    cells = int(generator.integers(2, 6))
    coarse = generator.integers(0, 256, (cells, cells, 3))
    muted = ((coarse + coarse.mean(axis=2, keepdims=True)) / 2).astype(np.uint8)
    return Image.fromarray(muted).resize((size, size), Image.Resampling.BICUBIC)


def _add_shape(image: Image.Image, generator: np.random.Generator) -> None:
    """Draw one ellipse, polygon or striped rectangle in place."""
    size = image.width
    canvas = ImageDraw.Draw(image)
    kind = generator.integers(3)
    colour, other = _colour(generator), _colour(generator)
    x, y = generator.uniform(-0.1, 0.8, 2) * size
    width, height = generator.uniform(0.15, 0.6, 2) * size
    if kind == 0:
        canvas.ellipse((x, y, x + width, y + height), fill=colour)
    elif kind == 1:
        corners = generator.uniform(0, 1, (int(generator.integers(3, 6)), 2)) * (width, height)
        canvas.polygon([(x + dx, y + dy) for dx, dy in corners.tolist()], fill=colour)
    else:
        canvas.rectangle((x, y, x + width, y + height), fill=colour)
        step = max(2, size // int(generator.integers(8, 32)))
        for line in range(int(x), int(x + width), 2 * step):
            canvas.rectangle((line, y, min(line + step, x + width), y + height), fill=other)


def _add_grain(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Return the picture with up to 3 % fine noise, as a sensor would add."""
    strength = generator.uniform(0, 8)
    noise = generator.standard_normal((image.height, image.width, 1)) * strength
    pixels = np.asarray(image, dtype=np.float64) + noise
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def _add_strokes(image: Image.Image, generator: np.random.Generator) -> None:
    """Draw lines of short pen strokes, as handwriting looks from afar, in place."""
    size = image.width
    canvas = ImageDraw.Draw(image)
    colour = _colour(generator)
    height = size / int(generator.integers(6, 14))
    top = generator.uniform(0, 0.6) * size
    for line in range(int(generator.integers(1, 4))):
        x, y = size * 0.05, top + 1.5 * line * height
        while x < size * 0.9:
            offsets = generator.uniform(0, 1, (4, 2)) * (0.6 * height, height)
            points = [(x + dx, y + dy) for dx, dy in offsets.tolist()]
            canvas.line(points, fill=colour, width=max(1, size // 64))
            x += height * generator.uniform(0.6, 1.0)


def _colour(generator: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = generator.integers(0, 256, 3).tolist()
    return red, green, blue
