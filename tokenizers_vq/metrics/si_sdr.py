"""Scale-invariant signal-to-distortion ratio.

Reference:
    Le Roux et al., SDR - half-baked or well done?, 2019, https://arxiv.org/abs/1811.02508, eq. 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenizers_vq.metrics.speech import Column, SpeechMetric, check_sound

CAP = 99.0  # dB given to a reconstruction that is a multiple of its original


def si_sdr(real: Tensor, fake: Tensor) -> Tensor:
    """Return the ratio in dB of ``(..., T)`` signals, ``(...)`` float64, at most 99.

    Both lose their mean; the original is scaled to the reconstruction by least squares
    (``a = <fake, real> / <real, real>``), and ``10 log10(|a real|^2 / |fake - a real|^2)``.
    """
    x, y = (signal.double() - signal.double().mean(-1, keepdim=True) for signal in (real, fake))
    scale = (y * x).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True)
    target = scale * x
    ratio = target.square().sum(-1) / (y - target).square().sum(-1)
    return (10 * torch.log10(ratio)).clamp(max=CAP)


class SISDR(SpeechMetric):
    """SI-SDR per clip at the clips' own rate, whole clip, no alignment.

    A shift of a few samples costs it everything and the ear nothing, and it ranks white noise above
    any codec: a codec never fails on it alone. A silent original or reconstruction has none.
    """

    columns = (Column("si_sdr", "dB", True),)
    rate = None

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return ``si_sdr``."""
        check_sound(original=real, reconstruction=fake)
        return {"si_sdr": float(si_sdr(real, fake))}
