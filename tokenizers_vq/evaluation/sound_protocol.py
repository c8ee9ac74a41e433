"""A protocol for sound: everything that has to be equal before two numbers share a column."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.evaluation.sound_codecs import CODECS
from tokenizers_vq.functional.resampling import resample
from tokenizers_vq.metrics.speech import SILENCE

CODE = 1  # counts the changes of the evaluation code that change numbers


@dataclass(frozen=True)
class SoundProtocol:
    """How clips are prepared, what is measured, and against what.

    The rest is fixed by the code and therefore part of ``CODE``: one channel (the mean), the one
    resampler, originals and reconstructions alike clipped to [-1, 1] and rounded to 16 bit, the
    tokenizer fed with exactly the clip it is compared with, resampled to its own rate and back.

    Attributes:
        name: file stem in ``conf/protocol``.
        signal: ``audio``, which tells these from protocols of pictures.
        sample_rate: Hz at which clips are compared.
        seconds: how much of the beginning of each file; None for all of it.
        level: RMS in dB of full scale to which every clip is brought before anything else, as far
            as its peak allows; None leaves it as stored.
        metrics: configs of registered metrics.
        depths: numbers of leading codebooks that are measured beside all of them, where the
            tokenizer decodes a prefix.
        anchors: trivial reconstructions measured in the same run, from ``ANCHORS``.
        codecs: classic codecs and their settings, see ``sound_codecs``.
        resamples: bootstrap draws.
        limit: how many clips, None for all.
        seed: of the bootstrap, the noise, and the choice of clips when ``limit`` is set.

    Raises:
        ConfigError: an anchor or codec does not exist, or a number is out of its range.
    """

    name: str
    signal: str = "audio"
    sample_rate: int = 16000
    seconds: float | None = None
    level: float | None = None
    metrics: Sequence[Mapping[str, Any]] = field(default_factory=lambda: [{"name": "mel_distance"}])
    depths: Sequence[int] = ()
    anchors: Sequence[str] = ()
    codecs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    resamples: int = 1000
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, names, known in (
            ("anchor", self.anchors, list(ANCHORS)), ("sound codec", self.codecs, list(CODECS)),
        ):  # fmt: skip
            for one in names:
                if one not in known:
                    raise unknown_name(kind, one, known)
        counts = {"limit": self.limit, "sample_rate": self.sample_rate}
        counts |= {f"depths[{k}]": depth for k, depth in enumerate(self.depths)}
        for option, count in counts.items():
            if count is not None and count < 1:
                raise ConfigError(
                    f"protocol '{self.name}': expected {option} of at least 1; got {count}. "
                    "Correct it, or leave it out."
                )

    @property
    def hash(self) -> str:
        """12 hex digits that differ as soon as anything that changes a number differs."""
        plain = json.dumps({"code": CODE, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:12]

    @property
    def id(self) -> str:
        """``name@hash``, printed with every number."""
        return f"{self.name}@{self.hash}"

    def prepare(self, clip: Tensor) -> Tensor:
        """Return a data set's item as the clip ``(1, T)`` that is measured.

        Args:
            clip: ``(C, T)`` float32 in [-1, 1] at ``sample_rate``.
        """
        clip = clip.mean(0, keepdim=True)
        if self.seconds is not None:
            clip = clip[:, : round(self.seconds * self.sample_rate)]
        return pcm16(self._levelled(clip))

    def _levelled(self, clip: Tensor) -> Tensor:
        rms, peak = float(clip.square().mean().sqrt()), float(clip.abs().max())
        if self.level is None or peak < SILENCE:
            return clip
        return clip * min(10 ** (self.level / 20) / rms, 1 / peak)


def pcm16(x: Tensor) -> Tensor:
    """Return samples clipped to [-1, 1] and rounded half to even to 16 bit, float32."""
    return (x * 32767).round().clamp(-32767, 32767) / 32767


def _same(clip: Tensor, sample_rate: int, seed: int) -> Tensor:
    return clip.clone()


def _low_pass(clip: Tensor, sample_rate: int, seed: int) -> Tensor:
    """Return what survives a rate of 4 kHz: everything below 2 kHz."""
    return resample(resample(clip, sample_rate, 4000), 4000, sample_rate)[:, : clip.shape[1]]


def _noisy(clip: Tensor, sample_rate: int, seed: int) -> Tensor:
    """Return the clip with white noise 20 dB below it."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(clip.shape, generator=generator)
    return clip + noise * clip.square().mean().sqrt() / 10


def _four_bit(clip: Tensor, sample_rate: int, seed: int) -> Tensor:
    """Return the clip rounded to 16 levels of full scale."""
    return (clip * 8).round().clamp(-8, 7) / 8


ANCHORS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "four_bit": _four_bit,
    "identity": _same,
    "low_pass_2k": _low_pass,
    "noise_20db": _noisy,
}
