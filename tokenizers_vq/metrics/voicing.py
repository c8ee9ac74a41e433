"""Voiced or not, and how periodic, frame by frame, by the package ``torchcrepe``.

Reference:
    Kim et al., CREPE, 2018, https://arxiv.org/abs/1802.06182; Morrison et al., Chunked
    Autoregressive GAN for Conditional Waveform Synthesis, 2021, https://arxiv.org/abs/2110.10139,
    section 4, for the recipe.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.errors import unknown_name
from tokenizers_vq.metrics.speech import (
    Column,
    SpeechMetric,
    Unscorable,
    check_length,
    check_sound,
)

HOP, F_MIN, F_MAX = 160, 50.0, 550.0  # samples at 16 kHz; Hz
VOICED = 0.21  # periodicity
QUIET = -60.0  # dB, A-weighted
SIZES = ("tiny", "full")


class Voicing(SpeechMetric):
    """``vuv_f1`` of the voiced decision and ``periodicity_rmse``, at 16 kHz, whole clip, hop 10 ms.

    A frame is voiced at a periodicity of at least .21; frames below -60 dB (A-weighted) have none.
    F1 counts voiced frames of the original as the truth. Clips without any voiced frame are
    counted, not scored.

    Args:
        model: ``tiny``, or ``full``, which the papers use and which costs 14 times as much; their
            values are not comparable.
        sample_rate: of the clips, Hz.
        resamples: bootstrap draws per interval.
        seed: of the bootstrap.

    Raises:
        ConfigError: there is no such model.
    """

    columns = (Column("vuv_f1", "", True), Column("periodicity_rmse", "", False))
    packages = (("torchcrepe", "torchcrepe"),)

    def __init__(
        self,
        model: Literal["tiny", "full"] = "tiny",
        sample_rate: int = 16000,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        if model not in SIZES:
            raise unknown_name("voicing model", model, SIZES)
        self.model = model
        super().__init__(sample_rate, resamples, seed)

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return both numbers."""
        check_length(real, 2048)
        check_sound(original=real, reconstruction=fake)
        a, b = (_periodicity(x.numpy().tobytes(), self.model) for x in (real, fake))
        truth, found = a >= VOICED, b >= VOICED
        both, wrong = int((truth & found).sum()), int((truth ^ found).sum())
        if not both + wrong:
            raise Unscorable("no voiced frame")
        return {
            "vuv_f1": 2 * both / (2 * both + wrong),
            "periodicity_rmse": float((a - b).square().mean().sqrt()),
        }

    def facts(self) -> dict[str, Any]:
        """Name the network."""
        return {"network": f"CREPE {self.model}"}


@lru_cache(maxsize=16)  # the original is compared with every reconstruction
def _periodicity(samples: bytes, model: str) -> Tensor:
    """Return the periodicity per frame ``(frames,)`` of float32 samples at 16 kHz."""
    import torchcrepe

    x = torch.from_numpy(np.frombuffer(samples, np.float32).copy())[None]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of librosa and resampy about themselves
        _, periodicity = torchcrepe.predict(
            x, 16000, HOP, F_MIN, F_MAX, model, return_periodicity=True, batch_size=512, pad=False
        )
        level = torchcrepe.loudness.a_weighted(x, 16000, HOP, pad=False)
    frames = min(periodicity.shape[1], level.shape[1])
    quiet = level[0, :frames] < QUIET
    return torch.where(quiet, 0.0, periodicity[0, :frames])
