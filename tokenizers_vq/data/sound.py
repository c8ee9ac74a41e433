"""One sound file in, one out, at the rate and with the channels of a tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tokenizers_vq.data.audio import _soundfile
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.types import SignalSpec


def read_sound(path: str | Path, signal: SignalSpec) -> tuple[Tensor, str]:
    """Return the samples ``(C, T)`` float32 of a file as ``signal`` wants them, and what was done.

    Another rate is resampled (windowed sinc). One channel of several is their mean; a single
    channel is repeated where more are wanted; of more than are wanted the first are taken.

    Returns:
        The samples, and one sentence that says what was changed; an empty one for nothing.

    Raises:
        DataError: not readable, no samples, or samples that are not finite.
        MissingExtraError: soundfile is not installed.
    """
    soundfile = _soundfile()
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"read_sound: expected a sound that soundfile reads at {path}; got "
            f"{str(error).splitlines()[0].rstrip('.')}. Check the path and the format."
        ) from error
    x = torch.from_numpy(samples.T.copy())
    _check(x, path)
    wanted = signal.sample_rate or rate
    done = []
    if rate != wanted:
        from torchaudio.functional import resample

        done.append(f"resampled from {rate} to {wanted} Hz")
        x = resample(x, rate, wanted)
    if len(x) != signal.channels:
        x, how = _as_channels(x, signal.channels)
        done.append(how)
    return x.clamp(-1, 1), f"{path}: {', '.join(done)}." if done else ""


def check_sound_name(path: Path) -> None:
    """Raise ``ConfigError`` unless soundfile can write a file of that name."""
    known = {name.lower() for name in _soundfile().available_formats()}
    if path.suffix.lower().removeprefix(".") not in known:
        raise ConfigError(
            f"decode: expected the name of a sound that soundfile can write; got {path}. "
            "Name it .wav or .flac."
        )


def write_sound(path: str | Path, x: Tensor, sample_rate: int) -> None:
    """Write samples ``(C, T)`` in [-1, 1], of 16 bits where the format has them."""
    _soundfile().write(str(path), x.float().cpu().numpy().T, sample_rate)


def _check(x: Tensor, path: str | Path) -> None:
    if not x.shape[-1]:
        raise DataError(
            f"read_sound: expected at least 1 sample in {path}; got none. Leave empty files out."
        )
    if not bool(x.isfinite().all()):
        raise DataError(
            f"read_sound: expected finite samples in {path}; got infinite ones or NaN. "
            "Write the file again."
        )


def _as_channels(x: Tensor, channels: int) -> tuple[Tensor, str]:
    if channels == 1:
        return x.mean(0, keepdim=True), f"the mean of its {len(x)} channels"
    if len(x) == 1:
        return x.expand(channels, -1), f"its channel repeated to {channels}"
    if len(x) > channels:
        return x[:channels], f"the first {channels} of its {len(x)} channels"
    raise DataError(
        f"read_sound: expected 1 or at least {channels} channels; got {len(x)}. "
        "Mix them to that number first."
    )
