"""A picture or frame on a canvas for the tokenizer, and the result back at its own size.

TokBench has two geometries: pictures lie on a square, frames of videos fill their short side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

LANCZOS, BILINEAR = Image.Resampling.LANCZOS, Image.Resampling.BILINEAR
MULTIPLE = 32  # of the long side of a frame's canvas


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


def place_frame(frame: Image.Image, side: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Return a frame of a video on a black canvas, and where: left, top, right, bottom.

    The short side is scaled to ``side``, the long one in proportion and rounded, both bilinearly;
    black is added on both ends of the long side up to a multiple of 32.
    """
    short = min(frame.size)
    inner = tuple(side if n == short else round(n * (side / short)) for n in frame.size)
    wide = inner[0] >= inner[1]
    full = math.ceil(max(inner) / MULTIPLE) * MULTIPLE
    size = (full, inner[1]) if wide else (inner[0], full)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = Image.new("RGB", size)
    canvas.paste(frame.convert("RGB").resize((inner[0], inner[1]), BILINEAR), (left, top))
    return canvas, (left, top, left + inner[0], top + inner[1])


def restore(
    canvas: Image.Image,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    by: Image.Resampling = LANCZOS,
) -> Image.Image:
    """Return what is inside ``box`` at ``size`` (width, height)."""
    inner = canvas.crop(box)
    return inner if inner.size == size else inner.resize(size, by)


def through(
    picture: Image.Image, side: int, change: Callable[[Image.Image], Image.Image]
) -> np.ndarray:
    """Return the RGB picture ``(H, W, 3)`` uint8 after ``change`` of its canvas of that side."""
    canvas, box = place(picture.convert("RGB"), side)
    return np.asarray(restore(change(canvas), box, picture.size))


def frames_through(
    frames: Sequence[Image.Image],
    side: int,
    change: Callable[[list[Image.Image]], list[Image.Image]],
) -> list[np.ndarray]:
    """Return RGB frames ``(H, W, 3)`` uint8 after ``change`` of their canvases, all at once."""
    placed = [place_frame(frame, side) for frame in frames]
    changed = change([canvas for canvas, _ in placed])
    return [
        np.asarray(restore(canvas, box, frame.size, BILINEAR))
        for canvas, (_, box), frame in zip(changed, placed, frames, strict=True)
    ]
