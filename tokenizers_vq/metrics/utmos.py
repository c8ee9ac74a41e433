"""UTMOS (strong learner of 2022), no reference needed, from a local weights file.

Reference:
    Saeki et al., UTMOS: UTokyo-SaruLab System for VoiceMOS Challenge 2022, 2022,
    https://arxiv.org/abs/2204.02152.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import CheckpointError, MissingExtraError
from tokenizers_vq.metrics.speech import Column, SpeechMetric, check_length, check_sound
from tokenizers_vq.metrics.weights import find_weights

KEY = "utmos22-strong"


class UTMOS(SpeechMetric):
    """UTMOS of the reconstruction at 16 kHz, whole clip, listener 288, one clip at a time.

    The network is that of the package ``utmos-pytorch``, which needs no fairseq; the weights
    (``utmos_state_dict.pt`` of its authors) are read from this machine and never downloaded.
    Evaluators give one model 3.74 and 4.05, so the result carries the weights' sha256.

    Args:
        sample_rate: of the clips, Hz.
        weights: local weights files by key, ``{"utmos22-strong": FILE}``.
        resamples: bootstrap draws per interval.
        seed: of the bootstrap.

    Raises:
        CheckpointError: the file given is not there, or holds other weights.
    """

    columns = (Column("utmos", "MOS", True),)
    packages = (("utmos_pytorch", "utmos-pytorch"),)

    def __init__(
        self,
        sample_rate: int = 16000,
        weights: Mapping[str, str] | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.weights = dict(weights or {})
        super().__init__(sample_rate, resamples, seed)

    def missing(self) -> str:
        """Return why UTMOS cannot be computed: no package, or no weights."""
        try:
            self.path = find_weights(KEY, self.weights)
        except MissingExtraError as absent:
            return f"{absent}; give --weights {KEY}=FILE"
        return super().missing()

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return ``utmos``."""
        check_sound(reconstruction=fake)
        check_length(fake, 4000)
        with torch.inference_mode():
            return {"utmos": float(_model(self.path)(fake[None]))}

    def facts(self) -> dict[str, Any]:
        """Name the weights."""
        return {} if self.reason else {"weights_sha256": _sha256(self.path)}


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _model(path: Path) -> Any:
    from utmos_pytorch import utmos_torch

    with torch.device("meta"), _quiet():
        wanted = set(utmos_torch.UTMOSModel().state_dict())
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    absent = sorted(wanted - set(found))
    if absent:  # the package itself would go on with random weights
        raise CheckpointError(
            f"weights {KEY}: expected the {len(wanted)} tensors of UTMOS in '{path}'; got none of "
            f"{absent[0]} and {len(absent) - 1} more. Give utmos_state_dict.pt of its authors."
        )
    with _quiet():
        return utmos_torch.UTMOSScoreTorch(str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package's use of the old weight norm from being warned about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
