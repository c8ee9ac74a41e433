"""Improved precision and recall: how much of one set lies on the manifold of the other.

Reference:
    Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models,
    2019, eq. 1 and 2. Both are close to 1 for reconstructions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError, check_shape
from tokenizers_vq.metrics.base import Score
from tokenizers_vq.metrics.feature_sets import FeatureSets

NEIGHBOURS = 3
CHUNK = 1024  # rows of the distance matrix at once: bounds the memory, not the result


def precision_recall(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Return the share of fakes inside the balls of the reals, and of reals in those of the fakes.

    A ball's radius is the distance to the k-th nearest neighbour in its own set, itself left out.
    Distances are float64.

    Shapes:
        real (n, d), fake (m, d), more than k rows each.

    Raises:
        ShapeError: the widths differ, or a set has at most k rows.
    """
    check_shape(real, "n d", "precision_recall")
    check_shape(fake, f"m {real.shape[1]}", "precision_recall")
    if min(len(real), len(fake)) <= k:
        raise ShapeError(
            f"precision_recall: expected more than {k} rows on both sides; got {len(real)} and "
            f"{len(fake)}. Give more images."
        )
    real, fake = real.double(), fake.double()
    return _covered(fake, real, _radii(real, k)), _covered(real, fake, _radii(fake, k))


class PrecisionRecall(FeatureSets):
    """``precision`` and ``recall`` on the features of one extractor, ``extractor`` as elsewhere."""

    names = ("precision", "recall")
    needs = NEIGHBOURS + 1

    def scores(self, real: Tensor, fake: Tensor) -> dict[str, Score]:
        """Return both; a resampled set has copies, whose radius is 0, so there is no interval."""
        detail = {**self.detail(), "neighbours": NEIGHBOURS}
        values = precision_recall(real, fake)
        return {
            name: Score(value, len(real), None, "", True, detail=detail)
            for name, value in zip(self.names, values, strict=True)
        }


def _radii(x: Tensor, k: int) -> Tensor:
    rows = [torch.cdist(part, x).kthvalue(k + 1).values for part in torch.split(x, CHUNK)]
    return torch.cat(rows)


def _covered(x: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Return the share of ``x`` that lies in at least one ball."""
    inside = [(torch.cdist(part, centres) <= radii).any(1) for part in torch.split(x, CHUNK)]
    return float(torch.cat(inside).double().mean())
