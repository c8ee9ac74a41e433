"""Semantic distillation: what a token means, learned from a network that listens.

Zhang et al., SpeechTokenizer, 2023, https://arxiv.org/abs/2308.16692, section 3.2. The teacher is
anything that turns sound into features over time; the log-mel teacher needs no weights.

Ahmed et al., DM-Codec, 2024, https://arxiv.org/abs/2410.15017, section 3.2, has two teachers, a
language model (LM) that reads the transcript and a speech model (SM): see ``guided``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate, logsigmoid

from tokenizers_vq.errors import CheckpointError, MissingExtraError, ShapeError
from tokenizers_vq.functional.resampling import resample
from tokenizers_vq.losses.spectral import MelSpectrum, Spectrum


class Teacher(Protocol):
    """Turns sound into features over time.

    Attributes:
        width: D.
    """

    @property
    def width(self) -> int:
        """Return D."""

    def features(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Return ``(B, frames, D)`` of ``audio (B, C, T)`` at ``sample_rate`` Hz."""


@dataclass(frozen=True)
class LogMelTeacher:
    """A teacher without weights: the natural logarithm of mel energies.

    Attributes:
        hop: samples between frames.
        n_fft: samples of a frame.
        mels: D.
    """

    hop: int = 320
    n_fft: int = 1024
    mels: int = 64

    @property
    def width(self) -> int:
        """Return D."""
        return self.mels

    def features(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Return ``(B, frames, mels)`` of the mean of the channels of ``audio (B, C, T)``."""
        mel = MelSpectrum(Spectrum(self.n_fft, self.hop), sample_rate, self.mels)
        with torch.no_grad():
            return mel(audio.mean(1, keepdim=True)).clamp(min=1e-5).log().mT


class SpeechModel:
    """A speech model of transformers from a folder: the mean of all its layers.

    HuBERT base is SpeechTokenizer's teacher, wav2vec 2.0 DM-Codec's.

    Args:
        folder: with ``config.json`` and ``model.safetensors``; nothing is downloaded.
        sample_rate: the model wants, Hz.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: there is no such model in ``folder``.
    """

    def __init__(self, folder: str | Path, sample_rate: int = 16000) -> None:
        try:
            from transformers import AutoModel
        except ImportError as error:
            raise MissingExtraError(
                "speech_model: expected the package transformers; got none. pip install "
                "transformers, or take the teacher log_mel."
            ) from error
        try:
            model: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"speech_model: expected a speech model of transformers in {folder}; got "
                f"{str(error).splitlines()[0].rstrip('.')}. Give the folder of a HuBERT."
            ) from error
        self._model, self.sample_rate = model.eval().requires_grad_(False), sample_rate
        self.width: int = model.config.hidden_size

    @torch.no_grad()
    def features(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Return ``(B, frames, width)`` of the mean of the channels of ``audio (B, C, T)``."""
        if self._model.device != audio.device:
            self._model.to(audio.device)
        x = resample(audio.mean(1), sample_rate, self.sample_rate)
        layers = self._model(x, output_hidden_states=True).hidden_states
        return torch.stack(layers).mean(0)


def d_axis(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ``-mean_d log sigmoid(cos_t(student_d, teacher_d))``, eq. 2; the cosine is over time.

    Args:
        student: ``(B, T, D)``.
        teacher: ``(B, T', D)``; both are cut to the shorter time.

    Raises:
        ShapeError: different batches or widths.
    """
    a, b = _cut(student, teacher)
    return -logsigmoid(cosine_similarity(a, b, dim=1)).mean()


def t_axis(student: Tensor, teacher: Tensor, weight: float = 1.0) -> Tensor:
    """Return ``mean|student - teacher| - weight * mean_t log sigmoid(cos_d)``.

    Args:
        student: ``(B, T, D)``.
        teacher: ``(B, T', D)``; both are cut to the shorter time.
        weight: of the cosine.

    Raises:
        ShapeError: different batches or widths.
    """
    a, b = _cut(student, teacher)
    return (a - b).abs().mean() - weight * logsigmoid(cosine_similarity(a, b, dim=2)).mean()


def guided(
    student: Tensor, lm: Tensor, sm: Tensor, weights: tuple[float, float] = (0.5, 0.5)
) -> Tensor:
    """Return ``a d_axis(student, lm) + b d_axis(student, sm)``, DM-Codec's combined distillation.

    The words of the transcript are not aligned to the frames: their features are taken one after
    the other, padded to the number of frames by the language model's own padding.

    Args:
        student: ``(B, T, D)``, the codes of one level, or the sum of some, in the teachers' width.
        lm: ``(B, T', D)`` of the language model, the mean of its layers.
        sm: ``(B, T'', D)`` of the speech model, the mean of its layers.
        weights: a and b; (1, 0) is guidance by the language model alone.

    Raises:
        ShapeError: different batches or widths.
    """
    a, b = weights
    return a * d_axis(student, lm) + b * d_axis(student, sm)


def at_rate(features: Tensor, frames: int) -> Tensor:
    """Return ``features (B, T, D)`` averaged or repeated linearly to ``(B, frames, D)``.

    Args:
        features: of a teacher.
        frames: of the student.
    """
    return interpolate(features.mT, frames, mode="linear", align_corners=False).mT


def _cut(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.ndim != 3 or student.shape[::2] != teacher.shape[::2]:
        raise ShapeError(
            f"distillation: expected student and teacher (B, T, D); got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}. Project the student to the teacher's width."
        )
    frames = min(student.shape[1], teacher.shape[1])
    return student[:, :frames].float(), teacher[:, :frames].detach().float()
