"""What each kind of signal is trained on and measured by in the matrix."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """How the cells of one kind of signal come about.

    Attributes:
        data: in ``conf/data``, what the project generates.
        label: of the first number, by which rows are ordered.
        score: that number: of the protocol, or as validation logs it behind ``val/``.
        lower: smaller is better.
        objective: in ``conf/objective``; None for that of ``train.yaml``.
        protocol: in ``conf/protocol``; None to go by the validation of the training.
    """

    data: str
    label: str
    score: str
    lower: bool = True
    objective: str | None = None
    protocol: str | None = None

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the numbers that a cell keeps."""
        if self.protocol is None:
            return (self.score, "nominal_bits", "usage")
        return (self.score, "ssim", "nominal_bits", "n_bytes", "usage")


KINDS = {
    "image": Kind("synthetic_images", "PSNR dB", "psnr", lower=False, protocol="image_matrix"),
    "video": Kind("synthetic_video", "PSNR dB", "psnr", lower=False),
    "audio": Kind("synthetic_audio", "log mel error", "spectral/mel", objective="audio_mel"),
    "motion": Kind("synthetic_motion", "smooth l1", "recon/smooth_l1", objective="motion"),
    "protein": Kind("synthetic_protein", "FAPE", "structure/fape", objective="protein"),
    "points": Kind("synthetic_shapes", "occupancy", "field/occupancy", objective="shape_field"),
}

OWN = {
    "alit": "+objective.weights.model={nll: 1.0, code: 1.0}",
    "flextok": "+objective.weights.model={velocity: 1.0}",
    "karl": "+objective.weights.model={nll: 1.0, code: 1.0, halt: 1.0}",
}
"""Decoders that are taught by losses of their own, and the words that give these weight."""


def objective_words(kind: str, decoder: str) -> list[str]:
    """Return the overrides of ``train.py`` that choose the losses for a decoder."""
    objective = KINDS[kind].objective
    words = [] if objective is None else [f"objective={objective}"]
    return words + ([OWN[decoder], "objective.weights.recon.l1=null"] if decoder in OWN else [])
