"""CMMD: maximum mean discrepancy of CLIP embeddings.

Reference:
    Jayasumana et al., Rethinking FID: Towards a Better Evaluation Metric for Image Generation,
    2024, eq. 4: Gaussian kernel of sigma 10 on unit vectors, all pairs counted, times 1,000.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError, check_shape
from tokenizers_vq.metrics.base import Score, bootstrap
from tokenizers_vq.metrics.feature_sets import FeatureSets

SIGMA = 10.0
SCALE = 1000.0
CHUNK = 1024  # rows of the kernel at once: bounds the memory, not the result
MOST = 2000  # images up to which an interval is drawn: each draw costs n^2


def cmmd(real: Tensor, fake: Tensor) -> float:
    """Return 1,000 times the squared MMD of embeddings, which are brought to length 1 here.

    Shapes:
        real (n, d), fake (m, d).

    Raises:
        ShapeError: the widths differ, or a set is empty.
    """
    check_shape(real, "n d", "cmmd")
    check_shape(fake, f"m {real.shape[1]}", "cmmd")
    if not min(len(real), len(fake)):
        raise ShapeError("cmmd: expected at least 1 row on both sides; got none. Give images.")
    x, y = (one.double() / one.double().norm(dim=1, keepdim=True) for one in (real, fake))
    return SCALE * (_kernel_mean(x, x) + _kernel_mean(y, y) - 2 * _kernel_mean(x, y))


class CMMD(FeatureSets):
    """``CMMD`` on CLIP ViT-L/14 at 336 px, from a local file.

    Args:
        extractor: ``clip``; another one would be another metric.
        weights: local weights files by key.
        resamples: bootstrap draws, pairs kept together.
        seed: of the bootstrap.
    """

    names = ("CMMD",)
    needs = 1

    def __init__(
        self,
        extractor: str = "clip",
        weights: Mapping[str, str] | None = None,
        resamples: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__(extractor, weights, resamples, seed)

    def scores(self, real: Tensor, fake: Tensor) -> dict[str, Score]:
        """Return ``CMMD``."""
        draws = self.resamples if len(real) <= MOST else 0
        interval = bootstrap(lambda rows: cmmd(real[rows], fake[rows]), len(real), draws, self.seed)
        detail = {**self.detail(), "sigma": SIGMA, "scale": SCALE}
        return {"CMMD": Score(cmmd(real, fake), len(real), interval, "", False, detail=detail)}


def _kernel_mean(x: Tensor, y: Tensor) -> float:
    """Return the mean of exp(-|a - b|^2 / (2 sigma^2)) over all pairs."""
    total = torch.zeros((), dtype=torch.float64)
    for part in torch.split(x, CHUNK):
        squares = torch.cdist(part, y, compute_mode="donot_use_mm_for_euclid_dist").square()
        total += (-squares / (2 * SIGMA**2)).exp().sum()
    return float(total) / (len(x) * len(y))
