"""A protocol for videos: everything that has to be equal before two numbers share a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from tokenizers_vq.data.transforms import eval_view, to_uint8
from tokenizers_vq.errors import ConfigError, DataError, unknown_name
from tokenizers_vq.evaluation.protocol import Protocol, uint8_tensor
from tokenizers_vq.evaluation.video_codecs import CODECS

ANCHORS = ("first_frame", "identity", "mean_colour")


@dataclass(frozen=True)
class VideoProtocol(Protocol):
    """How clips are prepared, what is measured, and against what.

    Frames are resized and cut as pictures are, see ``Protocol``. A clip begins with the file.

    Attributes:
        signal: ``video``, which tells these from protocols of pictures.
        size: side of the square frames in pixels, even; None keeps the frames' own size.
        frames: of a clip.
        frame_rate: frames per second that clips are taken at; None for every frame of the file.
        metrics: configs of registered metrics; those of pictures stand in ``frames: of``.
        anchors: trivial reconstructions: every frame the first, every sample the clip's mean
            colour, or the clip itself.
        codecs: classic codecs and the options of their encoders, see ``video_codecs``.

    Raises:
        ConfigError: an anchor or codec does not exist, or a number is out of its range.
    """

    signal: str = "video"
    size: int | None = 64
    frames: int = 17
    frame_rate: float | None = None
    metrics: Sequence[Mapping[str, Any]] = field(
        default_factory=lambda: [{"name": "frames", "of": [{"name": "similarity"}]}]
    )

    known_anchors: ClassVar[Sequence[str]] = ANCHORS

    def __post_init__(self) -> None:
        super().__post_init__()
        for codec in self.codecs:
            if codec not in CODECS:
                raise unknown_name("video codec", codec, CODECS)
        even = self.size is None or not self.size % 2
        if self.frames < 2 or not even or (self.frame_rate or 1) <= 0:
            raise ConfigError(
                f"protocol '{self.name}': expected frames of 2 or more, an even size and a "
                f"frame_rate above 0; got frames {self.frames}, size {self.size}, frame_rate "
                f"{self.frame_rate}. Correct it."
            )

    def prepare(self, signal: Tensor) -> Tensor:
        """Return a data set's item as the uint8 clip ``(3, frames, h, w)`` that is measured.

        Args:
            signal: ``(3, T, H, W)`` float32 in [-1, 1]; what is after ``frames`` is cut off.

        Raises:
            DataError: it is shorter.
        """
        if signal.shape[1] < self.frames:
            raise DataError(
                f"protocol '{self.name}': expected clips of at least {self.frames} frames; got "
                f"{signal.shape[1]}. Choose other data, or another protocol."
            )
        pixels = to_uint8(signal[:, : self.frames])
        if self.size is None or tuple(pixels.shape[2:]) == (self.size, self.size):
            return pixels
        views = [
            uint8_tensor(eval_view(Image.fromarray(frame.permute(1, 2, 0).numpy()), self.size))
            for frame in pixels.unbind(1)
        ]
        return torch.stack(views, dim=1)
