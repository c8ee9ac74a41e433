"""Opus, Vorbis, MP3 and mu-law at real file sizes: what a tokenizer of sound is compared with.

What is counted is the whole file that a player would need: the Ogg pages and headers of Opus and
Vorbis, the frames and the information tag of MP3, the 24-byte header of a mu-law AU file. For Opus
the bytes of the packets alone are given beside it, which is what a stream would cost.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, MissingExtraError, unknown_name
from tokenizers_vq.functional.resampling import resample

MULAW_RATE = 8000  # Hz
OPUS_RATE = 48000  # Hz, at which every Opus decoder works


class Coded(NamedTuple):
    """A clip after a codec.

    Attributes:
        clip: ``(1, T)`` float32, decoded, of the rate and length of the original.
        n_bytes: size of the file.
        payload_bytes: of its packets alone; the whole file where no player can do without the rest.
    """

    clip: Tensor
    n_bytes: int
    payload_bytes: int


def encode(clip: Tensor, sample_rate: int, codec: str, setting: float) -> Coded:
    """Return what a codec makes of a clip.

    Args:
        clip: ``(1, T)`` float32 in [-1, 1].
        sample_rate: Hz.
        codec: a name in ``CODECS``.
        setting: of the codec: Opus kb/s, variable rate, speech mode; Vorbis and MP3 libsndfile's
            compression level from 0 (most bytes) to 1, variable rate; mu-law bits, of which there
            are 8.

    Raises:
        ConfigError: there is no such codec or setting.
        MissingExtraError: its package is not installed.
    """
    if codec not in CODECS:
        raise unknown_name("sound codec", codec, CODECS)
    reason = missing(codec)
    if reason:
        raise MissingExtraError(f"sound codec {codec}: {reason}.")
    decoded, n_bytes, payload = CODECS[codec](clip[0], sample_rate, setting)
    padded = torch.nn.functional.pad(decoded, (0, max(0, clip.shape[1] - len(decoded))))
    return Coded(padded[None, : clip.shape[1]].clamp(-1, 1), n_bytes, payload)


def missing(codec: str) -> str:
    """Return why a codec cannot be measured on this machine, empty if it can."""
    package = PACKAGES[codec]
    if find_spec(package) is not None:
        return ""
    return f'package {package} not found (pip install "tokenizers_vq[speech]")'


def label(codec: str, setting: float) -> str:
    """Return the name of a codec with its setting as it is printed."""
    if codec == "opus":
        return f"Opus {setting:g} kb/s"
    if codec == "mulaw":
        return "mu-law 8 bit, 8 kHz"
    return f"{ {'mp3': 'MP3', 'vorbis': 'Vorbis'}[codec] } level {setting:g}"


def _opus(x: Tensor, rate: int, kbps: float) -> tuple[Tensor, int, int]:
    if rate not in (8000, 12000, 16000, 24000, 48000):
        x, rate = resample(x, rate, OPUS_RATE), OPUS_RATE
    packets, file = _ogg_opus(_int16(x), rate, kbps)
    decoded = resample(_decoded(file), OPUS_RATE, rate)
    return decoded, len(file), packets


def _ogg_opus(samples: np.ndarray, rate: int, kbps: float) -> tuple[int, bytes]:
    """Return the bytes of the packets, and the Ogg file."""
    import av

    buffer, payload = io.BytesIO(), 0
    with av.open(buffer, "w", format="ogg") as container:
        options = {"application": "voip", "vbr": "on"}
        stream = container.add_stream("libopus", rate=rate, layout="mono", options=options)
        stream.bit_rate = round(kbps * 1000)
        stream.format = "s16"
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            payload += packet.size
            container.mux(packet)
    return payload, buffer.getvalue()


def _decoded(file: bytes) -> Tensor:
    import av

    with av.open(io.BytesIO(file), "r") as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return torch.from_numpy(np.concatenate(frames, axis=1)[0].astype(np.float32))


def _mulaw(x: Tensor, rate: int, bits: float) -> tuple[Tensor, int, int]:
    if bits != 8:
        raise ConfigError(f"sound codec mulaw: expected 8 bits; got {bits:g}. G.711 has no other.")
    decoded, size = _written(resample(x, rate, MULAW_RATE), MULAW_RATE, "AU", "ULAW")
    return resample(decoded, MULAW_RATE, rate), size, size - 24


def _vorbis(x: Tensor, rate: int, level: float) -> tuple[Tensor, int, int]:
    decoded, size = _written(x, rate, "OGG", "VORBIS", compression_level=_level(level))
    return decoded, size, size


def _mp3(x: Tensor, rate: int, level: float) -> tuple[Tensor, int, int]:
    # at a constant rate libsndfile writes no tag of the delay, and the clip comes back shifted
    level = _level(level)
    decoded, size = _written(
        x, rate, "MP3", "MPEG_LAYER_III", compression_level=level, bitrate_mode="VARIABLE"
    )
    return decoded, size, size


def _written(
    x: Tensor, rate: int, container: str, subtype: str, **options: float | str
) -> tuple[Tensor, int]:
    """Return what a file that soundfile writes holds, and its size."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, x.numpy(), rate, format=container, subtype=subtype, **options)
    size = buffer.tell()
    buffer.seek(0)
    return torch.from_numpy(soundfile.read(buffer, dtype="float32")[0]), size


def _level(level: float) -> float:
    if not 0 <= level <= 1:
        raise ConfigError(f"sound codec: expected a compression level of 0 to 1; got {level:g}.")
    return float(level)


def _int16(x: Tensor) -> np.ndarray:
    samples: np.ndarray = (x * 32767).round().clamp(-32768, 32767).short().numpy()
    return samples


CODECS: dict[str, Callable[[Tensor, int, float], tuple[Tensor, int, int]]] = {
    "opus": _opus,
    "vorbis": _vorbis,
    "mp3": _mp3,
    "mulaw": _mulaw,
}
PACKAGES = {"opus": "av", "vorbis": "soundfile", "mp3": "soundfile", "mulaw": "soundfile"}
