"""Generated sound with the structure of speech, for tests and first runs."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.transforms import draw_generator
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec

FORMANTS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))
"""Resonances in Hz of the vowels of father, see, boot and bet; Peterson and Barney, 1952."""


class SyntheticAudio(SignalDataset):
    """Sounds of a voice: voiced syllables of gliding pitch, hisses, pauses, faint room noise.

    Sound ``i`` is a function of ``seed``, ``i``, ``seconds`` and ``sample_rate`` alone and is the
    same in each epoch.

    Args:
        n: number of sounds.
        seconds: length of each.
        sample_rate: Hz.
        seed: another seed gives other sounds.
        channels: the same voice, in each further channel fainter by up to 12 dB.

    Shapes:
        item ``(channels, round(seconds * sample_rate))`` float32 in [-1, 1]

    Raises:
        ConfigError: ``n`` or ``channels`` is below 1, or a sound would have no sample.
    """

    def __init__(
        self,
        n: int = 256,
        seconds: float = 1.0,
        sample_rate: int = 16000,
        seed: int = 0,
        channels: int = 1,
    ) -> None:
        self.samples = round(seconds * sample_rate)
        if n < 1 or channels < 1 or self.samples < 1:
            raise ConfigError(
                "SyntheticAudio: expected n and channels of 1 or more and at least one sample; got "
                f"n={n}, channels={channels}, seconds={seconds}, sample_rate={sample_rate}."
            )
        signal = SignalSpec("audio", channels=channels, sample_rate=sample_rate)
        super().__init__([f"{index:08d}" for index in range(n)], signal)
        self.sample_rate, self.seed = sample_rate, seed

    def item(self, index: int, epoch: int) -> Tensor:
        """Return sound ``index``; ``epoch`` changes nothing."""
        return torch.from_numpy(self.sound(index))

    def sound(self, index: int) -> np.ndarray:
        """Return sound ``index``, ``(channels, T)`` float32."""
        voice = self.voice(index)
        generator = draw_generator(self.seed, 1, index)  # its own: the voice is that of mono
        decibels = generator.uniform(-12, 0, size=(self.signal.channels, 1))
        decibels[0] = 0
        sound: np.ndarray = 10 ** (decibels / 20) * voice
        return sound.astype(np.float32)

    def voice(self, index: int) -> np.ndarray:
        """Return the voice of sound ``index``, ``(T,)`` float32."""
        generator = draw_generator(self.seed, 0, index)
        x = 10 ** generator.uniform(-4, -2.5) * generator.standard_normal(self.samples)
        pitch, start = generator.uniform(90, 260), generator.uniform(0, 0.1) * self.sample_rate
        while start < self.samples:
            length = int(generator.uniform(0.08, 0.3) * self.sample_rate) + 1
            hiss = generator.random() < 0.25
            make = _hiss if hiss else _vowel
            syllable = make(generator, length, self.sample_rate, pitch)
            part = x[int(start) : int(start) + length]
            part += syllable[: len(part)]
            start += length + generator.exponential(0.04) * self.sample_rate
        level = generator.uniform(0.3, 0.9)
        return (level * x / max(float(np.abs(x).max()), 1e-9)).astype(np.float32)

    def sha256(self) -> str:
        """Return the hex digest over the ids and samples of all sounds; makes each of them."""
        digest = hashlib.sha256()
        for index, id_ in enumerate(self.ids):
            digest.update(id_.encode() + self.sound(index).tobytes())
        return digest.hexdigest()


def _vowel(generator: np.random.Generator, length: int, rate: int, pitch: float) -> np.ndarray:
    """Return harmonics of a gliding pitch, each as loud as the resonances at its frequency."""
    t = np.arange(length) / rate
    glide = pitch * (1 + generator.uniform(-0.3, 0.3) * t / t[-1] if length > 1 else 1 + 0 * t)
    phase = 2 * np.pi * np.cumsum(glide) / rate
    numbers = np.arange(1, max(2, int(min(rate / 2, 5000) / (1.3 * pitch))))
    ends = generator.integers(len(FORMANTS), size=2)
    tones = numbers * pitch
    loud = [_resonance(tones, FORMANTS[end]) / numbers for end in ends]
    mix = (np.arange(length) / length)[:, None]  # the vowel changes on its way
    sines = np.sin(phase[:, None] * numbers)
    voiced: np.ndarray = (sines * ((1 - mix) * loud[0] + mix * loud[1])).sum(1)
    return voiced * np.hanning(length)


def _resonance(tones: np.ndarray, formants: tuple[int, ...]) -> np.ndarray:
    """Return the gain at frequencies in Hz of resonances that are 90 Hz wide, and some floor."""
    gains = [1 / (1 + ((tones - formant) / 90) ** 2) for formant in formants]
    return np.asarray(0.05 + np.sum(gains, axis=0))


def _hiss(generator: np.random.Generator, length: int, rate: int, pitch: float) -> np.ndarray:
    """Return noise whose low frequencies are weak, as in sea."""
    noise = np.diff(generator.standard_normal(length + 1))
    return generator.uniform(0.05, 0.2) * noise * np.hanning(length)
