"""Short-time objective intelligibility and its extended form, by the package ``pystoi``.

Reference:
    Taal et al., An Algorithm for Intelligibility Prediction of Time-Frequency Weighted Noisy
    Speech, 2011, eq. 1 to 5; Jensen and Taal, 2016, for the extended form.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor

from tokenizers_vq.metrics.base import choose
from tokenizers_vq.metrics.speech import Column, SpeechMetric, Unscorable, check_sound

NAMES = ("stoi", "estoi")


class STOI(SpeechMetric):
    """STOI and ESTOI per clip in -1..1, fed at 16 kHz, whole clip.

    The package itself goes down to 10 kHz, drops frames 40 dB below the loudest, and works in
    segments of 384 ms: clips with less speech than one segment are counted, not scored. Hardly
    moves above 0.9. Values at 24 kHz differ in the third digit, hence one rate.

    Args:
        names: which of ``stoi`` and ``estoi``.
        sample_rate: of the clips, Hz.
        resamples: bootstrap draws per interval.
        seed: of the bootstrap.

    Raises:
        ConfigError: ``names`` holds another name.
    """

    packages = (("pystoi", "pystoi"),)
    chunking = "segments of 384 ms, hop 12.8 ms, inside the package"

    def __init__(
        self,
        names: Sequence[str] = NAMES,
        sample_rate: int = 16000,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.names = choose("stoi", names, NAMES)
        self.columns = tuple(Column(name, "", True) for name in self.names)
        super().__init__(sample_rate, resamples, seed)

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return the chosen forms."""
        from pystoi import stoi

        check_sound(original=real)
        x, y = real.numpy(), fake.numpy()
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Not enough STFT frames")
            try:
                return {name: float(stoi(x, y, 16000, extended=name == "estoi"))
                        for name in self.names}  # fmt: skip
            except RuntimeWarning as short:  # the package would return 1e-5
                raise Unscorable("less than 384 ms of speech") from short
