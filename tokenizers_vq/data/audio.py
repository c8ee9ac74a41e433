"""A folder of sounds of any format, rate and number of channels."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.data.files import FileFolder
from tokenizers_vq.errors import ConfigError, MissingExtraError
from tokenizers_vq.functional.resampling import resample
from tokenizers_vq.types import SignalSpec

SUFFIXES = {".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"}
SILENCE = 1e-4
"""Peak below which a sound counts as silent (-80 dB of full scale)."""
TRIES = 8
"""Draws of a training crop until one is not silent."""

log = logging.getLogger(__name__)


class AudioFolder(FileFolder):
    """All sounds below a folder, as LibriSpeech, LibriTTS or anything else lays them out.

    Files that cannot be read, or are empty, silent, not finite or clipped are left out, counted
    and named once. With ``train`` only headers are read at construction; what then turns out to be
    unusable is replaced from there on by the next good file of the list.

    Args:
        root: the folder; searched to any depth, names with a leading dot left out.
        sample_rate: Hz; other rates are resampled (windowed sinc).
        seconds: length of the crop; shorter files are repeated. None gives whole files.
        train: random crops, else the beginning of the file.
        split: ``"val"`` takes 1 file in 20 by a hash of its name, ``"train"`` the others.
        channels: 1 averages the channels of a file; n takes its first n, mono repeated.
        gain: lowest and highest peak in dB of full scale to which a crop is scaled, drawn anew
            for each; None leaves the level.
        max_clipped: share of samples at full scale above which a file is left out.
        exclude: patterns of file names to leave out.
        seed: of crops and gains.

    Shapes:
        item ``(channels, T)`` float32 in [-1, 1]

    Raises:
        ConfigError: an unknown split or a number outside its range.
        DataError: the folder does not exist, or no sound is left.
        MissingExtraError: soundfile is not installed.
    """

    noun = "sound"
    suffixes = SUFFIXES

    def __init__(
        self,
        root: str | Path,
        sample_rate: int = 24000,
        seconds: float | None = None,
        train: bool = False,
        split: Literal["all", "train", "val"] = "all",
        channels: int = 1,
        gain: Sequence[float] | None = None,
        max_clipped: float = 0.05,
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if sample_rate < 1 or channels < 1 or (seconds is not None and seconds * sample_rate < 1):
            raise ConfigError(
                "AudioFolder: expected a sample_rate, channels and seconds of at least one sample; "
                f"got sample_rate={sample_rate}, channels={channels}, seconds={seconds}."
            )
        self.sample_rate, self.seconds, self.channels = sample_rate, seconds, channels
        self.gain, self.max_clipped = gain, max_clipped
        signal = SignalSpec("audio", channels=channels, sample_rate=sample_rate)
        super().__init__(root, signal, train, seed, split, exclude=exclude)

    def why_not(self, name: str) -> str | None:
        """Return why a file cannot be used, or None; to train, only its header is read."""
        found = _length(self.root / name) if self.train else self.read(name, None)
        return found if isinstance(found, str) else None

    def read(self, name: str, generator: np.random.Generator | None) -> Tensor | str:
        """Return a crop ``(channels, T)`` at our rate, or why the file cannot be used."""
        path = self.root / name
        header = _length(path)
        if isinstance(header, str):
            return header
        frames, rate = header
        wanted = frames if self.seconds is None else math.ceil(self.seconds * rate) + 1
        for _ in range(1 if generator is None else TRIES):
            spare = max(frames - wanted, 0)
            start = 0 if generator is None else int(generator.integers(spare + 1))
            x = _read(path, start, min(wanted, frames))
            reason = x if isinstance(x, str) else self._flaw(x)
            if isinstance(x, Tensor) and reason is None:
                return self._cut(self._as_channels(x), rate)
        return reason or "not readable"

    def _flaw(self, x: Tensor) -> str | None:
        """Return why the samples ``(channels, T)`` cannot be used, or None."""
        if not bool(x.isfinite().all()):
            return "samples that are not finite"
        if float(x.abs().max()) < SILENCE:
            return "silent"
        clipped = float((x.abs() >= 0.9999).float().mean())
        return f"{clipped:.0%} of its samples clipped" if clipped > self.max_clipped else None

    def _as_channels(self, x: Tensor) -> Tensor:
        if self.channels == 1:
            return x.mean(0, keepdim=True)
        return x.expand(self.channels, -1) if len(x) == 1 else x[: self.channels]

    def _cut(self, x: Tensor, rate: int) -> Tensor:
        """Resample ``x (C, T)``, and repeat or cut it to the length of the crop."""
        x = resample(x, rate, self.sample_rate)
        if self.seconds is not None:
            samples = round(self.seconds * self.sample_rate)
            x = x.repeat(1, -(-samples // x.shape[-1]))[:, :samples]
        return x.clamp(-1, 1).contiguous()

    def finished(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """Return a sound at the wished level."""
        if self.gain is None:
            return x
        low, high = self.gain
        peak = float(10 ** (generator.uniform(low, high) / 20))
        return (x * (peak / max(float(x.abs().max()), SILENCE))).clamp(-1, 1)


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtraError(
            "AudioFolder: expected the package soundfile; got none. "
            'Run pip install "tokenizers_vq[audio]".'
        ) from error
    return soundfile


def _length(path: Path) -> tuple[int, int] | str:
    """Return the number of frames and the rate of a file, or why it cannot be read."""
    soundfile = _soundfile()
    try:
        info = soundfile.info(str(path))
    except (OSError, RuntimeError) as error:
        return f"not readable ({str(error).splitlines()[0]:.60})"
    return (info.frames, info.samplerate) if info.frames > 0 else "no samples"


def _read(path: Path, start: int, frames: int) -> Tensor | str:
    """Return ``(channels, frames)`` float32 of a file from ``start`` on, or why not."""
    soundfile = _soundfile()
    try:
        x, _ = soundfile.read(
            str(path), frames=frames, start=start, dtype="float32", always_2d=True
        )
    except (OSError, RuntimeError) as error:
        return f"not readable ({str(error).splitlines()[0]:.60})"
    return torch.from_numpy(x.T.copy()) if len(x) else "no samples"
