"""Samples from the spectra of overlapping windows.

Reference:
    Griffin and Lim, Signal Estimation from Modified Short-Time Fourier Transform, 1984, eq. 6;
    Siuzdak, Vocos, 2023, https://arxiv.org/abs/2306.00814, section 3.3, for where windows lie.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Padding = Literal["same", "center"]


def inverse_stft(spectra: Tensor, window: Tensor, hop: int, padding: Padding) -> Tensor:
    """Return the signals whose windowed spectra are nearest to ``spectra``.

    Args:
        spectra: ``(B, T, N / 2 + 1)`` complex, of windows that lie ``hop`` samples apart.
        window: ``(N,)``, what the windows were multiplied by.
        hop: samples per window, at most ``N / 2``.
        padding: ``"same"`` if the middle of the first window is that of the first ``hop`` samples,
            ``"center"`` if it is the first sample.

    Returns:
        ``(B, 1, T * hop)`` float32.
    """
    size, count = window.shape[0], spectra.shape[1]
    frames = torch.fft.irfft(spectra, n=size) * window
    weight = window.square().expand(1, count, size)
    start = (size - hop) // 2 if padding == "same" else size // 2
    total, norm = (_overlapped(x, hop)[..., start : start + count * hop] for x in (frames, weight))
    return total / norm


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """Return the sum ``(B, 1, (T - 1) * hop + N)`` of frames ``(B, T, N)`` at their places."""
    count, size = frames.shape[1:]
    length = (count - 1) * hop + size
    return F.fold(frames.mT, (1, length), (1, size), stride=(1, hop))[:, 0]
