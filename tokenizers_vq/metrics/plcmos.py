"""PLCMOS v2, no reference needed, by the package ``speechmos``.

Reference:
    Diener et al., PLCMOS - a data-driven non-intrusive metric for the evaluation of packet loss
    concealment algorithms, 2023, https://arxiv.org/abs/2305.15127.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from tokenizers_vq.metrics.speech import Column, SpeechMetric, check_sound

RATERS = 0  # seed of the 15 random raters that the package averages over


class PLCMOS(SpeechMetric):
    """PLCMOS of the reconstruction at 16 kHz, whole clip.

    The package averages over 15 raters drawn from numpy's global generator, so the same clip never
    gets the same score twice. Here they are the same 15 for every clip, and the generator is left
    as it was.
    """

    columns = (Column("plcmos", "MOS", True),)
    packages = (("speechmos", "speechmos"), ("onnxruntime", "onnxruntime"))

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return ``plcmos``."""
        from speechmos import plcmos

        check_sound(reconstruction=fake)
        with _seeded(RATERS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Conversion of an array with ndim")
            return {"plcmos": float(plcmos.run(fake.numpy(), 16000)["plcmos"])}

    def facts(self) -> dict[str, Any]:
        """Say how the raters were drawn."""
        return {"raters": f"15, seed {RATERS}"}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, and put it back."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
