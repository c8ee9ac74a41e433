"""A folder of videos of any format, size and frame rate, read through PyAV."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenizers_vq.data.files import FileFolder
from tokenizers_vq.data.transforms import Augment, eval_view, train_view
from tokenizers_vq.errors import ConfigError, DataError, MissingExtraError
from tokenizers_vq.types import SignalSpec

SUFFIXES = {
    ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm",
    ".wmv", ".y4m",
}  # fmt: skip

log = logging.getLogger(__name__)


class VideoFolder(FileFolder):
    """Clips of all videos below a folder, as UCF-101, Kinetics or anything else lays them out.

    The first video stream of a file is used. Files that cannot be read, have no video, are
    truncated before the clip's end or are shorter than a clip are left out, counted and named once.
    With ``train`` only headers are read at construction; what then turns out to be unusable is
    replaced from there on by the next good file of the list.

    Args:
        root: the folder; searched to any depth, names with a leading dot left out.
        frames: of a clip; causal networks like 1 + a multiple of their stride.
        size: side of the square crop in pixels; None keeps frames whole.
        frame_rate: frames per second of a clip: each frame is the one that is shown at its time.
            None takes every frame of the file.
        train: random crops in space and time, mirrored at random; else the middle square of the
            first frames.
        split: ``"val"`` takes 1 file in 20 by a hash of its name, ``"train"`` the others.
        augment: fields of ``transforms.Augment`` for training crops.
        exclude: patterns of file names to leave out.
        seed: of crops.

    Shapes:
        item ``(3, frames, size, size)`` or ``(3, frames, H, W)`` float32 in [-1, 1]

    Raises:
        ConfigError: an unknown split or a number outside its range.
        DataError: the folder does not exist, or no video is left.
        MissingExtraError: PyAV is not installed.
    """

    noun = "video"
    suffixes = SUFFIXES

    def __init__(
        self,
        root: str | Path,
        frames: int = 17,
        size: int | None = 64,
        frame_rate: float | None = None,
        train: bool = False,
        split: Literal["all", "train", "val"] = "all",
        augment: dict[str, Any] | None = None,
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        _check(frames, size, frame_rate)
        _av()
        self.frames, self.size, self.frame_rate = frames, size, frame_rate
        self.augment = Augment(**(augment or {}))
        signal = SignalSpec("video", frame_rate=frame_rate)
        super().__init__(root, signal, train, seed, split, exclude=exclude)

    def why_not(self, name: str) -> str | None:
        """Return why a file cannot be used, or None; to train, only its header is read."""
        found = header(self.root / name) if self.train else self.read(name, None)
        return found if isinstance(found, str) else None

    def read(self, name: str, generator: np.random.Generator | None) -> Tensor | str:
        """Return a clip ``(3, T, H, W)``, or why there is none."""
        path = self.root / name
        about = header(path)
        if isinstance(about, str):
            return about
        rate = self.frame_rate or about.frame_rate
        start = 0.0
        if generator is not None:
            spare = max(about.seconds - self.frames / rate, 0.0)
            start = float(generator.uniform(0, spare))
        pictures = read_frames(path, start, self.frames, self.frame_rate)
        if isinstance(pictures, str):
            return pictures
        if generator is None:
            views = [eval_view(picture, self.size) for picture in pictures]
        else:  # the same crop of every frame
            draw = generator.bit_generator.state
            views = []
            for picture in pictures:
                generator.bit_generator.state = draw
                views.append(train_view(picture, self.size, self.augment, generator))
        pixels = np.stack([np.asarray(view) for view in views]).transpose(3, 0, 1, 2)
        return torch.from_numpy(pixels.astype(np.float32) / np.float32(127.5) - np.float32(1))


@dataclass(frozen=True)
class Header:
    """What a file says about its first video stream.

    Attributes:
        seconds: length; 0 where the file does not say.
        frame_rate: frames per second on average.
    """

    seconds: float
    frame_rate: float


def header(path: Path) -> Header | str:
    """Return what a file says about its video, or why it cannot be read."""
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return "no video"
            stream = container.streams.video[0]
            ticks = stream.duration
            seconds = float(ticks * stream.time_base) if ticks else (container.duration or 0) / 1e6
            return Header(seconds, float(stream.average_rate or 25))
    except (OSError, ValueError, av.FFmpegError) as error:
        return _reason(path, error)


def read_frames(
    path: Path, start: float, count: int, frame_rate: float | None = None
) -> list[Image.Image] | str:
    """Return ``count`` frames from ``start`` seconds on, or why there are not as many.

    Args:
        path: of the file.
        start: seconds.
        count: how many.
        frame_rate: frames per second; each is the one shown at its time. None for all frames.
    """
    av = _av()
    found: list[Image.Image] = []
    last: Image.Image | None = None
    try:
        for time, frame in _decoded(path, start):
            if time < start - 1e-6:
                last = frame
                continue
            if frame_rate is None:
                found.append(frame)
            else:
                # frames whose time has passed are the one before
                while len(found) < count and start + len(found) / frame_rate < time - 1e-6:
                    found.append(last or frame)
            last = frame
            if len(found) >= count:
                return found[:count]
    except (OSError, ValueError, av.FFmpegError) as error:
        return _reason(path, error)
    if frame_rate is not None and last is not None and len(found) == count - 1:
        found.append(last)
    if len(found) >= count:
        return found
    return f"only {len(found)} of {count} frames" if found or last else "no frames"


def every_frame(path: Path) -> Iterator[Image.Image]:
    """Yield all frames of a file, in the order in which they are shown.

    Raises:
        DataError: it cannot be read.
        MissingExtraError: PyAV is not installed.
    """
    about: Header | str | None = header(path)
    try:
        if isinstance(about, Header):
            yield from (frame for _, frame in _decoded(path, 0.0))
            return
    except (OSError, ValueError, _av().FFmpegError) as error:
        about = _reason(path, error)
    raise DataError(f"video: expected frames in '{path}'; got {about}. Check the file.")


def _decoded(path: Path, start: float) -> Iterator[tuple[float, Image.Image]]:
    """Yield times in seconds and frames, from a key frame at or before ``start`` on."""
    with _av().open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = (
            1  # else the cores decide how much of a cut file is good
        )
        begin = float((stream.start_time or 0) * stream.time_base)
        if start > 0:
            container.seek(int((start + begin) / stream.time_base), stream=stream)
        rate = float(stream.average_rate or 25)
        for number, frame in enumerate(container.decode(stream)):
            time = number / rate if frame.time is None else frame.time - begin
            yield time, frame.to_image()


def _check(frames: int, size: int | None, frame_rate: float | None) -> None:
    """Raise unless the options make sense."""
    if (
        frames < 1
        or (size is not None and size < 1)
        or (frame_rate is not None and frame_rate <= 0)
    ):
        raise ConfigError(
            "VideoFolder: expected frames and size of 1 or more and a frame_rate above 0; got "
            f"frames={frames}, size={size}, frame_rate={frame_rate}."
        )


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            "VideoFolder: expected the package av; got none. "
            'Run pip install "tokenizers_vq[video]".'
        ) from error
    return av


def _reason(path: Path, error: Exception) -> str:
    if not path.stat().st_size:
        return "an empty file"
    return f"not readable ({str(error).splitlines()[0]:.60})"
