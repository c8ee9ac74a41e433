"""Distance between spectra, as the DAC repository reports.

Reference:
    Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, 2023,
    https://arxiv.org/abs/2306.06546, section 4.3.
"""

from __future__ import annotations

from torch import Tensor

from tokenizers_vq.metrics.mel_distance import log_difference, magnitudes
from tokenizers_vq.metrics.speech import Column, SpeechMetric, check_length

WINDOWS = (2048, 512)  # samples


def stft_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Return the distance ``()`` of two signals ``(T,)``.

    The sum over both windows of ``mean|log10 a^2 - log10 b^2| + mean|a - b|``, magnitudes below
    1e-5 raised to it in the logarithm.
    """
    total = real.new_zeros(())
    for n_fft in WINDOWS:
        a, b = magnitudes(real, n_fft), magnitudes(fake, n_fft)
        total = total + 2 * log_difference(a, b) + (a - b).abs().mean()
    return total


class STFTDistance(SpeechMetric):
    """``stft_distance`` per clip at the clips' own rate, whole clip."""

    columns = (Column("stft_distance", "", False),)
    rate = None

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return ``stft_distance``."""
        check_length(real, 1025)
        return {"stft_distance": float(stft_distance(real, fake))}
