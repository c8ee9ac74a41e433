"""A picture on a square canvas for the tokenizer, and the result back at its own size."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

LANCZOS = Image.Resampling.LANCZOS


def place(picture: Image.Image, side: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Return the picture on a black canvas, and where: left, top, right, bottom.

    The long side is scaled to ``side``, the short one in proportion and rounded up, both by
    Lanczos; the result is centred. A picture whose long side is ``side`` keeps its pixels.
    """
    width, height = picture.size
    scale = side / max(width, height)
    inner = (min(side, math.ceil(width * scale)), min(side, math.ceil(height * scale)))
    small = picture if inner == picture.size else picture.resize(inner, LANCZOS)
    left, top = (side - inner[0]) // 2, (side - inner[1]) // 2
    canvas = Image.new("RGB", (side, side))
    canvas.paste(small, (left, top))
    return canvas, (left, top, left + inner[0], top + inner[1])


def restore(
    canvas: Image.Image, box: tuple[int, int, int, int], size: tuple[int, int]
) -> Image.Image:
    """Return what is inside ``box`` at ``size`` (width, height), by Lanczos."""
    inner = canvas.crop(box)
    return inner if inner.size == size else inner.resize(size, LANCZOS)


def through(
    picture: Image.Image, side: int, change: Callable[[Image.Image], Image.Image]
) -> np.ndarray:
    """Return the RGB picture ``(H, W, 3)`` uint8 after ``change`` of its canvas of that side."""
    canvas, box = place(picture.convert("RGB"), side)
    return np.asarray(restore(change(canvas), box, picture.size))
