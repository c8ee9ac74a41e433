"""x264 and SVT-AV1 through PyAV at a budget of real bytes, to compare tokens of videos with.

Bytes are those of the packets, without a container. Both code 4:2:0 with their slow presets; what
is lost in going there and back is part of their error, as it is for whoever uses them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tokenizers_vq.errors import ConfigError, MissingExtraError, ShapeError, unknown_name

CODECS: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "x264": ("libx264", "h264", 51, {"preset": "veryslow"}),
    "svtav1": ("libsvtav1", "libdav1d", 63, {"preset": "3", "svtav1-params": "lp=1"}),
}
"""Encoder, decoder, largest constant rate factor, options."""


@dataclass(frozen=True)
class CodedVideo:
    """What a codec made of a video.

    Attributes:
        video: ``(T, H, W, 3)`` uint8.
        n_bytes: of all packets.
        crf: the constant rate factor.
        fits: whether that is within the budget; if not, it is the codec's smallest.
    """

    video: np.ndarray
    n_bytes: int
    crf: int
    fits: bool


def code_video(video: np.ndarray, codec: str, budget: int, rate: int = 25) -> CodedVideo:
    """Return the best that a codec makes of a video in at most ``budget`` bytes.

    Args:
        video: ``(T, H, W, 3)`` uint8, H and W even.
        codec: ``x264`` or ``svtav1``.
        budget: bytes.
        rate: frames per second.

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
    low, high = 1, CODECS[codec][2]  # SVT-AV1 takes 0 for its default
    packets = _encode(video, codec, high, rate)
    fits = _size(packets) <= budget
    # a larger factor makes a smaller file, near enough for a search by halves
    while fits and low < high:
        middle = (low + high) // 2
        tried = _encode(video, codec, middle, rate)
        if _size(tried) <= budget:
            packets, high = tried, middle
        else:
            low = middle + 1
    return CodedVideo(_decode(packets, codec), _size(packets), high, fits)


def _encode(video: np.ndarray, codec: str, crf: int, rate: int) -> list[Any]:
    av = _av()
    name, _, _, options = CODECS[codec]
    context = av.CodecContext.create(name, "w")
    context.height, context.width = video.shape[1:3]
    context.pix_fmt, context.framerate, context.time_base = "yuv420p", rate, Fraction(1, rate)
    context.options = {**options, "crf": str(crf)}
    packets = []
    for time, pixels in enumerate(video):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = time
        packets += context.encode(frame.reformat(format="yuv420p"))
    return packets + list(context.encode(None))


def _decode(packets: list[Any], codec: str) -> np.ndarray:
    context = _av().CodecContext.create(CODECS[codec][1], "r")
    frames = [frame for packet in [*packets, None] for frame in context.decode(packet)]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def _size(packets: list[Any]) -> int:
    return sum(packet.size for packet in packets)


def _av() -> Any:
    os.environ.setdefault("SVT_LOG", "1")  # its encoder prints its settings otherwise
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            'code_video: expected the package av; got none. Run pip install "tokenizers_vq[video]".'
        ) from error
    return av
