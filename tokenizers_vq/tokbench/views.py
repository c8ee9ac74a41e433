"""What is annotated, picture by picture or frame by frame, before and after a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tokenizers_vq.data.decode import read_rgb
from tokenizers_vq.data.video import every_frame
from tokenizers_vq.errors import DataError
from tokenizers_vq.tokbench.geometry import frames_through, through

Change = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Clips:
    """What changes frames of a video together.

    Attributes:
        change: of the canvases of consecutive frames.
        window: how many of them at a time, from the first frame on; the last window of a video
            may hold fewer.
    """

    change: Callable[[list[Image.Image]], list[Image.Image]]
    window: int


@dataclass(frozen=True)
class View:
    """A picture or frame with what is annotated in it.

    Attributes:
        before: the original, ``(H, W, 3)`` uint8.
        after: returns what became of it, likewise; only then is anything encoded.
        found: the words or faces in it.
    """

    before: np.ndarray
    after: Callable[[], np.ndarray]
    found: list[Any]


def views(items: Sequence[Any], root: Path, change: Change | Clips, side: int) -> Iterator[View]:
    """Yield every annotated picture or frame once.

    Args:
        items: words or faces, all of pictures or all of videos.
        root: folder of the pictures or videos.
        change: of a canvas, or of consecutive ones.
        side: of the canvas.

    Raises:
        DataError: a file is missing, cannot be read, or has fewer frames than are annotated.
    """
    ordered = sorted(items, key=lambda one: (one.file, one.frame or 0))
    for file, group in groupby(ordered, key=lambda one: one.file):
        found = list(group)
        what = "picture" if found[0].frame is None else "video"
        path = root / file
        if not path.is_file():
            raise DataError(
                f"tokbench: expected the {what} '{path}'; got none. "
                f"Check the folder of the {'images' if what == 'picture' else 'videos'}."
            )
        if what == "video":
            yield from _frames(path, found, change, side)
            continue
        picture, one = read_rgb(path), _single(change)
        yield View(np.asarray(picture), partial(through, picture, side, one), found)


def _frames(path: Path, items: Sequence[Any], change: Change | Clips, side: int) -> Iterator[View]:
    """Yield the annotated frames of a video; a window without any is read, but not changed."""
    clips = change if isinstance(change, Clips) else Clips(partial(_each, change), 1)
    last, start = items[-1].frame, 0
    by_frame = {k: list(group) for k, group in groupby(items, key=lambda one: one.frame)}
    frames = every_frame(path)
    while start <= last:
        window = _Window(list(islice(frames, clips.window)), clips, side)
        if not window.frames:
            raise DataError(
                f"tokbench: expected frame {last + 1} of '{path}'; got {start} frames. "
                "Does the annotation belong to this video?"
            )
        for k, frame in enumerate(window.frames):
            if start + k in by_frame:
                yield View(np.asarray(frame), partial(window.at, k), by_frame[start + k])
        start += len(window.frames)


class _Window:
    """Consecutive frames, changed together when one of them is asked for."""

    def __init__(self, frames: list[Image.Image], clips: Clips, side: int) -> None:
        self.frames, self.clips, self.side = frames, clips, side

    @cached_property
    def changed(self) -> list[np.ndarray]:
        return frames_through(self.frames, self.side, self.clips.change)

    def at(self, k: int) -> np.ndarray:
        return self.changed[k]


def _each(change: Change, canvases: list[Image.Image]) -> list[Image.Image]:
    return [change(canvas) for canvas in canvases]


def _single(change: Change | Clips) -> Change:
    if not isinstance(change, Clips):
        return change
    together = change.change
    return lambda canvas: together([canvas])[0]
