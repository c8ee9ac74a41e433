"""Mel filters, and the logarithmic mel spectra that networks of Whisper's kind listen to.

Reference:
    Stevens, Volkmann and Newman, A Scale for the Measurement of the Psychological Magnitude Pitch,
    1937; Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022,
    https://arxiv.org/abs/2212.04356, section 2.2 (its front end).
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.errors import unknown_name

LEAST = 1e-10  # of a filter's power
RANGE = 8.0  # decades below the loudest that are told apart
BLOCK = 3000  # frames that are transformed at once, so that memory does not grow with the signal


@lru_cache(maxsize=64)
def mel_filters(
    bins: int,
    mels: int,
    sample_rate: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    *,
    scale: str = "htk",
    norm: str | None = None,
) -> Tensor:
    """Return triangular filters ``(bins, mels)`` float32 on the mel scale, as torchaudio has them.

    Args:
        bins: of the spectrum, ``n_fft / 2 + 1``.
        mels: number of filters.
        sample_rate: Hz.
        f_min: lower end of the first filter, Hz.
        f_max: upper end of the last filter, Hz; default half the sample rate.
        scale: ``htk``, or ``slaney`` (linear up to 1 kHz).
        norm: ``slaney`` for filters of equal area, None for equal height.

    Raises:
        ConfigError: another scale or norm.
    """
    from torchaudio.functional import melscale_fbanks

    if scale not in ("htk", "slaney"):
        raise unknown_name("mel scale", scale, ("htk", "slaney"))
    if norm not in (None, "slaney"):
        raise unknown_name("mel norm", norm, ("slaney",))
    with warnings.catch_warnings(), torch.device("cpu"):  # kept, so not on meta
        # the published scales have more filters than bins at low frequencies; those stay zero
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        filters: Tensor = melscale_fbanks(
            bins, f_min, f_max or sample_rate / 2, mels, sample_rate, norm, scale
        )
    return filters


def log_mel(x: Tensor, filters: Tensor, hop: int, frames: int) -> Tensor:
    """Return the spectra ``(B, mels, frames)`` float32 of signals ``x (B, T)``.

    Frame t is centred at sample ``t * hop`` of the signal, whose ends are reflected; one too short
    for that is completed with zeros. The power of each filter is
    ``y = max(log10 max(power, 1e-10), loudest - 8) / 4 + 1``, the loudest that of the item.

    Args:
        x: ``(B, T)`` float.
        filters: ``(n_fft / 2 + 1, mels)``.
        hop: samples between frames.
        frames: how many, at most ``T // hop + 1`` of a signal that is not too short.
    """
    size = 2 * (filters.shape[0] - 1)
    side = size // 2
    with torch.autocast(x.device.type, enabled=False):
        x = F.pad(x.float(), (0, max(0, side + 1 - x.shape[-1])))
        x = F.pad(x[:, None], (side, side), mode="reflect")[:, 0]
        window = torch.hann_window(size, device=x.device)
        parts = []
        for first in range(0, frames, BLOCK):
            last = min(frames, first + BLOCK)
            piece = x[:, first * hop : (last - 1) * hop + size]
            spectra = torch.stft(piece, size, hop, window=window, center=False, return_complex=True)
            parts.append(filters.float().mT @ spectra.abs().square())
        level = torch.cat(parts, dim=-1).clamp(min=LEAST).log10()
        loudest = level.amax((1, 2), keepdim=True)
        return torch.maximum(level, loudest - RANGE) / 4 + 1
