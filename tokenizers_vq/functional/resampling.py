"""The one resampler: every change of rate in data, metrics and evaluation is this one."""

from __future__ import annotations

from torch import Tensor

WIDTH, ROLLOFF = 6, 0.99
DESCRIPTION = f"windowed sinc, Hann, {WIDTH} zero crossings a side, cut-off {ROLLOFF} of Nyquist"


def resample(x: Tensor, source: int, target: int) -> Tensor:
    """Return ``x (..., T)`` at another rate, ``(..., ceil(T * target / source))``.

    A windowed sinc with the constants of torchaudio's default, which the field's speech metrics are
    fed through; written out, so that another default cannot change a number.

    Args:
        x: samples, float.
        source: rate of ``x``, Hz.
        target: rate wanted, Hz; ``x`` itself comes back when it is the same.
    """
    if source == target:
        return x
    from torchaudio.functional import resample as torchaudio_resample

    resampled: Tensor = torchaudio_resample(
        x,
        source,
        target,
        lowpass_filter_width=WIDTH,
        rolloff=ROLLOFF,
        resampling_method="sinc_interp_hann",
    )
    return resampled
