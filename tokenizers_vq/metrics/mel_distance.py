"""Distances between mel spectra, as the DAC repository reports and trains with.

Reference:
    Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, 2023,
    https://arxiv.org/abs/2306.06546, sections 3.4 and 4.3.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from torch import Tensor

from tokenizers_vq.metrics.speech import Column, SpeechMetric, check_length

FLOOR = 1e-5
REPORTED = ((2048, 150), (512, 80))  # samples of a window, mel bands
SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))


def magnitudes(x: Tensor, n_fft: int) -> Tensor:
    """Return the spectrum ``(frames, n_fft / 2 + 1)`` of ``x (T,)``.

    Hann window, hop a quarter, frames around every multiple of the hop, both ends reflected.
    """
    window = torch.hann_window(n_fft, dtype=x.dtype)
    return torch.stft(x, n_fft, n_fft // 4, n_fft, window, return_complex=True).abs().T


def mel_distance(real: Tensor, fake: Tensor, sample_rate: int) -> Tensor:
    """Return DAC's reported distance ``()`` of two signals ``(T,)``.

    The sum over windows of 2,048 and 512 samples (150 and 80 Slaney bands) of
    ``mean|log10 a^2 - log10 b^2| + mean|a - b|``, magnitudes below 1e-5 raised to it in the
    logarithm.
    """
    total = real.new_zeros(())
    for n_fft, mels in REPORTED:
        a, b = (magnitudes(x, n_fft) @ _bands(n_fft, mels, sample_rate) for x in (real, fake))
        total = total + 2 * log_difference(a, b) + (a - b).abs().mean()
    return total


def mel_distance_7(real: Tensor, fake: Tensor, sample_rate: int) -> Tensor:
    """Return DAC's training loss ``()`` of two signals ``(T,)``: log10 mel at seven scales."""
    total = real.new_zeros(())
    for n_fft, mels in SCALES:
        a, b = (magnitudes(x, n_fft) @ _bands(n_fft, mels, sample_rate) for x in (real, fake))
        total = total + log_difference(a, b)
    return total


def log_difference(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean absolute difference of the logarithms to base 10, floored at 1e-5."""
    return (a.clamp(min=FLOOR).log10() - b.clamp(min=FLOOR).log10()).abs().mean()


@lru_cache(maxsize=32)
def _bands(n_fft: int, mels: int, sample_rate: int) -> Tensor:
    from torchaudio.functional import melscale_fbanks

    with warnings.catch_warnings():
        # at the published numbers of bands the lowest fall between two bins; they stay zero
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        filters: Tensor = melscale_fbanks(
            n_fft // 2 + 1, 0.0, sample_rate / 2, mels, sample_rate, "slaney", "slaney"
        )
    return filters


class MelDistance(SpeechMetric):
    """``mel_distance`` (two scales, reported) and ``mel_distance_7`` (seven, trained with).

    At the clips' own rate, whole clip. The bands end at half the rate, so values at 16 and 24 kHz
    are not comparable.
    """

    columns = (Column("mel_distance", "", False), Column("mel_distance_7", "", False))
    rate = None

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return both distances."""
        check_length(real, 1025)
        return {
            "mel_distance": float(mel_distance(real, fake, self.sample_rate)),
            "mel_distance_7": float(mel_distance_7(real, fake, self.sample_rate)),
        }
