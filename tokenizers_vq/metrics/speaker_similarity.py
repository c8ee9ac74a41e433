"""Similarity of the voice: cosine of GE2E speaker embeddings, by the package ``Resemblyzer``.

Reference:
    Wan et al., Generalized End-to-End Loss for Speaker Verification, 2018,
    https://arxiv.org/abs/1710.10467.
"""

from __future__ import annotations

import warnings
from functools import cache, lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from tokenizers_vq.metrics.speech import Column, SpeechMetric, Unscorable, check_sound


class SpeakerSimilarity(SpeechMetric):
    """Cosine of the two clips' embeddings, 0..1, at 16 kHz.

    The package raises the level to -30 dB, cuts long silences by a voice detector, and averages
    windows of 1.6 s (0.77 s apart, the last one filled with zeros). **Not comparable with SPK-SIM
    of the papers**, which is WavLM-large with ECAPA-TDNN.
    """

    columns = (Column("speaker_similarity", "", True),)
    packages = (
        ("resemblyzer", "Resemblyzer"),
        ("webrtcvad", "webrtcvad-wheels"),
        ("librosa", "librosa"),
    )
    install = "pip install librosa webrtcvad-wheels; pip install --no-deps Resemblyzer"
    chunking = "voiced parts, windows of 1.6 s, 0.77 s apart"

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return ``speaker_similarity``."""
        check_sound(original=real, reconstruction=fake)
        a, b = (_embedding(x.numpy().tobytes()) for x in (real, fake))
        if a is None or b is None:
            side = "original" if a is None else "reconstruction"
            raise Unscorable(f"no voice found in the {side}")
        return {"speaker_similarity": float(a @ b)}

    def facts(self) -> dict[str, Any]:
        """Name the network."""
        return {"network": "GE2E, weights inside the package"}


@lru_cache(maxsize=16)  # the original is compared with every reconstruction
def _embedding(samples: bytes) -> np.ndarray | None:
    """Return the unit-length embedding of float32 samples at 16 kHz, None without voice."""
    package, encoder = _encoder()
    voiced = package.preprocess_wav(np.frombuffer(samples, np.float32))
    if not len(voiced):
        return None
    embedding: np.ndarray = encoder.embed_utterance(voiced)
    return embedding


@cache
def _encoder() -> tuple[Any, Any]:
    """Return the package and its network; it imports a deprecated name of scipy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import resemblyzer
    return resemblyzer, resemblyzer.VoiceEncoder("cpu", verbose=False)
