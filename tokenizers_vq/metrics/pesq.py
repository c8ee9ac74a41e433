"""PESQ, wide and narrow band, by the package ``pesq``.

Reference:
    ITU-T P.862 (2001), P.862.1 (2003, narrow band), P.862.2 (2007, wide band).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tokenizers_vq.metrics.base import choose
from tokenizers_vq.metrics.speech import Column, SpeechMetric, Unscorable, check_length, check_sound

NAMES = ("pesq_wb", "pesq_nb")


class PESQ(SpeechMetric):
    """MOS-LQO per clip at 16 kHz, whole clip, the package's own level and time alignment.

    Both bands are called PESQ in tables; they differ by 0.3 to 1, so they have names of their own.
    A clip in which PESQ finds no utterance (silence, mostly) is counted, not scored.

    Args:
        names: which of ``pesq_wb`` (P.862.2) and ``pesq_nb`` (P.862.1).
        sample_rate: of the clips, Hz.
        resamples: bootstrap draws per interval.
        seed: of the bootstrap.

    Raises:
        ConfigError: ``names`` holds another name.
    """

    packages = (("pesq", "pesq"),)

    def __init__(
        self,
        names: Sequence[str] = NAMES,
        sample_rate: int = 16000,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.names = choose("pesq", names, NAMES)
        self.columns = tuple(Column(name, "MOS", True) for name in self.names)
        super().__init__(sample_rate, resamples, seed)

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return the chosen bands."""
        from pesq import NoUtterancesError, PesqError, pesq

        check_length(real, 4000)  # a quarter of a second: less is an error inside the package
        check_sound(original=real, reconstruction=fake)
        x, y = real.numpy(), fake.numpy()
        try:
            return {name: float(pesq(16000, x, y, name[-2:])) for name in self.names}
        except NoUtterancesError as none:
            raise Unscorable("PESQ found no utterance") from none
        except PesqError as error:
            raise Unscorable(f"PESQ failed ({type(error).__name__})") from error
