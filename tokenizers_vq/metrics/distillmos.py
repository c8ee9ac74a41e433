"""Distill-MOS, no reference needed, by the package ``distillmos``.

Reference:
    Stahl and Gamper, Distillation and Pruning for Scalable Self-Supervised Representation-Based
    Speech Quality Assessment, 2025, https://arxiv.org/abs/2502.05356.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.metrics.speech import Column, SpeechMetric, check_sound


class DistillMOS(SpeechMetric):
    """Distill-MOS of the reconstruction at 16 kHz: the default score without a reference.

    The package scales every window to a peak of 1, pads a shorter clip with zeros to 7.68 s, and
    averages windows of 7.68 s at most 1 s apart. On published reconstructions it tracks UTMOS
    (Pearson .94), which is no reason to print it under that name.
    """

    columns = (Column("distillmos", "MOS", True),)
    packages = (("distillmos", "distillmos"),)
    chunking = "windows of 7.68 s, at most 1 s apart; shorter clips padded with zeros"

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return ``distillmos``."""
        check_sound(reconstruction=fake)
        with torch.inference_mode():
            return {"distillmos": float(_model()(fake[None]))}


@cache
def _model() -> Any:
    from distillmos import sqa

    model = sqa.ConvTransformerSQAModel(load_weights=False)  # with weights it prints
    table = torch.load(sqa.DEFAULT_WEIGHTS_CHKPT, map_location="cpu", weights_only=True)
    model.load_state_dict(table["model"])
    return model.eval()
