"""x264 and SVT-AV1 through PyAV at a budget of real bytes, to compare tokens of videos with.

Bytes are those of the packets, without a container and without the text in which x264 writes its
own settings, which no decoder reads. Both code 4:2:0 with their slow presets; what is lost in going
there and back is part of their error, as it is for whoever uses them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from tokenizers_vq.errors import ConfigError, MissingExtraError, ShapeError, unknown_name

CODECS: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "x264": ("libx264", "h264", 51, {"preset": "veryslow"}),
    "svtav1": ("libsvtav1", "libdav1d", 63, {"preset": "3", "svtav1-params": "lp=1"}),
}
"""Encoder, decoder, largest constant rate factor, options."""
SCALES = (1.0, 0.5, 0.25)
SMALLEST_SIDE = 16  # px: below it encoders refuse
START, TEXT = b"\0\0\1", 6  # of a unit of H.264; the type of units that say, but do not show
MISSING = 'code_video: expected the package av; got none. Run pip install "tokenizers-vq[video]".'


@dataclass(frozen=True)
class CodedVideo:
    """What a codec made of a video.

    Attributes:
        video: ``(T, H, W, 3)`` uint8.
        n_bytes: of all packets.
        crf: the constant rate factor.
        fits: whether that is within the budget; if not, it is the codec's smallest.
        scale: the factor that the frames were shrunk by before coding.
    """

    video: np.ndarray
    n_bytes: int
    crf: int
    fits: bool
    scale: float = 1.0


def code_video(
    video: np.ndarray,
    codec: str,
    budget: int,
    rate: float = 25,
    scales: Sequence[float] = (1.0,),
    options: Mapping[str, Any] | None = None,
) -> CodedVideo:
    """Return the best that a codec makes of a video in at most ``budget`` bytes.

    Args:
        video: ``(T, H, W, 3)`` uint8, H and W even.
        codec: ``x264`` or ``svtav1``.
        budget: bytes.
        rate: frames per second.
        scales: factors to shrink the frames by, of which the one of least error is taken.
        options: of the encoder, that replace those in ``CODECS``.

    Raises:
        ConfigError: there is no such codec, or no budget.
        ShapeError: another shape or dtype.
        MissingExtraError: PyAV is not installed.
    """
    if codec not in CODECS:
        raise unknown_name("video codec", codec, CODECS)
    if budget < 1:
        raise ConfigError(f"code_video: expected a budget of at least 1 byte; got {budget}.")
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[1] % 2 or video.shape[2] % 2:
        raise ShapeError(
            f"code_video: expected uint8 frames (T, H, W, 3) with even sides; got {video.dtype} "
            f"{video.shape}. Codecs of 4:2:0 take no others."
        )
    coder = _Coder(codec, rate, dict(options or {}))
    found: CodedVideo | None = None
    for scale in sorted(scales, reverse=True):
        if scale < 1 and min(video.shape[1:3]) * scale < SMALLEST_SIDE:
            continue
        tried = coder.best(video, budget, scale)
        if found is None or _rank(tried, video) > _rank(found, video):
            found = tried
        elif found.fits:
            break  # smaller yet is worse yet
    if found is None:
        raise ConfigError("code_video: expected scales that hold 1; got none that fits the frames.")
    return found


def missing(codec: str) -> str:
    """Return why a codec is not there, empty if it is."""
    return "" if find_spec("av") else f"{codec}: package av not found"


class _Coder:
    """One codec with its settings."""

    def __init__(self, codec: str, rate: float, options: dict[str, Any]) -> None:
        self.encoder, self.decoder, self.largest, known = CODECS[codec]
        self.rate = Fraction(rate).limit_denominator(1001)
        self.options = {**known, **{key: str(value) for key, value in options.items()}}
        self.codec = codec

    def best(self, video: np.ndarray, budget: int, scale: float) -> CodedVideo:
        """Return the best within the budget at one scale, or the smallest."""
        height, width = video.shape[1:3]
        sides = (_even(height * scale), _even(width * scale))
        small = resized(video, sides)
        low, high = 1, self.largest  # SVT-AV1 takes 0 for its default
        packets = self.encode(small, high)
        fits = _size(packets) <= budget
        # a larger factor makes a smaller file, near enough for a search by halves
        while fits and low < high:
            middle = (low + high) // 2
            tried = self.encode(small, middle)
            if _size(tried) <= budget:
                packets, high = tried, middle
            else:
                low = middle + 1
        back = resized(self.decode(packets), (height, width))
        return CodedVideo(back, _size(packets), high, fits, scale)

    def encode(self, video: np.ndarray, crf: int) -> list[bytes]:
        """Return the packets of a video at a constant rate factor."""
        av = _av()
        context = av.CodecContext.create(self.encoder, "w")
        context.height, context.width = video.shape[1:3]
        context.pix_fmt, context.framerate = "yuv420p", self.rate
        context.time_base = 1 / self.rate
        context.options = {**self.options, "crf": str(crf)}
        packets = []
        for time, pixels in enumerate(video):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = time
            packets += context.encode(frame.reformat(format="yuv420p"))
        data = [bytes(packet) for packet in packets + list(context.encode(None))]
        return [_without_text(one) for one in data] if self.codec == "x264" else data

    def decode(self, packets: list[bytes]) -> np.ndarray:
        """Return the frames of the packets, ``(T, H, W, 3)`` uint8."""
        av = _av()
        context = av.CodecContext.create(self.decoder, "r")
        frames = []
        for packet in [*map(av.Packet, packets), None]:
            frames += context.decode(packet)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def resized(video: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Return frames ``(T, H, W, 3)`` at other sides, by Pillow's Lanczos filter."""
    if video.shape[1:3] == sides:
        return video
    return np.stack(
        [
            np.asarray(Image.fromarray(frame).resize(sides[::-1], Image.Resampling.LANCZOS))
            for frame in video
        ]
    )


def _without_text(packet: bytes) -> bytes:
    """Return an H.264 packet without the units that only say what made it."""
    begins = []
    place = packet.find(START)
    while place >= 0:
        # a unit may begin with one zero more
        begins.append(place - (place > 0 and packet[place - 1] == 0))
        place = packet.find(START, place + 3)
    ends = [*begins[1:], len(packet)]
    units = [packet[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return b"".join(one for one in units if one[one.find(START) + 3] & 31 != TEXT)


def _even(side: float) -> int:
    return 2 * round(side / 2)


def _error(coded: CodedVideo, video: np.ndarray) -> float:
    return float(np.square(coded.video.astype(np.float64) - video).mean())


def _rank(coded: CodedVideo, video: np.ndarray) -> tuple[bool, float]:
    """Return what is larger for the better one: what fits, then the error, or else the bytes."""
    return coded.fits, -_error(coded, video) if coded.fits else -float(coded.n_bytes)


def _size(packets: list[bytes]) -> int:
    return sum(map(len, packets))


def _av() -> Any:
    os.environ.setdefault("SVT_LOG", "1")  # its encoder prints its settings otherwise
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(MISSING) from error
    return av
