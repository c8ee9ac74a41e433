"""Samples from the spectra of overlapping windows.

Reference:
    Griffin and Lim, Signal Estimation from Modified Short-Time Fourier Transform, 1984, eq. 6;
    Siuzdak, Vocos, 2023, https://arxiv.org/abs/2306.00814, section 3.3, for where windows lie.
"""

from __future__ import annotations

from typing import Any, Literal

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
    start = _start(size, hop, padding)
    total, norm = (_overlapped(x, hop)[..., start : start + count * hop] for x in (frames, weight))
    return total / norm


def inverse_stft_step(
    spectra: Tensor, window: Tensor, hop: int, padding: Padding, state: Any, last: bool
) -> tuple[Tensor, Any]:
    """Return the samples that the next spectra decide, and the sums that are not complete.

    Args:
        spectra: ``(B, n, N / 2 + 1)`` complex, n of 0 and more.
        window: as in ``inverse_stft``, and so are the next two.
        hop: see there.
        padding: see there.
        state: what the step before returned; None at the beginning.
        last: nothing follows.

    Returns:
        ``(B, 1, m)`` float32: behind the first spectrum's samples, ``hop`` per spectrum.
    """
    size, count = window.shape[0], spectra.shape[1]
    start = _start(size, hop, padding)
    blank = window.new_zeros(1, 1, size - hop)
    sums, norms, early = state or (blank.expand(len(spectra), 1, -1), blank, start)
    if count:
        frames = torch.fft.irfft(spectra, n=size) * window
        weight = window.square().expand(1, count, size)
        sums, norms = (
            F.pad(old, (0, count * hop)) + _overlapped(new, hop)
            for old, new in ((sums, frames), (norms, weight))
        )
    ready = count * hop + (start if last else 0)
    x = sums[..., early:ready] / norms[..., early:ready]
    return x, (sums[..., count * hop :], norms[..., count * hop :], max(0, early - count * hop))


def _start(size: int, hop: int, padding: Padding) -> int:
    """Return how many samples of the first window lie before the signal."""
    return (size - hop) // 2 if padding == "same" else size // 2


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """Return the sum ``(B, 1, (T - 1) * hop + N)`` of frames ``(B, T, N)`` at their places."""
    count, size = frames.shape[1:]
    length = (count - 1) * hop + size
    return F.fold(frames.mT, (1, length), (1, size), stride=(1, hop))[:, 0]
