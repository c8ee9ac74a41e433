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
ROWS = 256  # of one set at once, likewise
CHUNK = 1024  # rows of the distance matrix at once: bounds the memory, not the result


def precision_recall(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Return the share of fakes inside the balls of the reals, and of reals in those of the fakes.

    A ball's radius is the distance to the k-th nearest neighbour in its own set, itself left out.
    Distances have the precision of the features, and a ball's edge is as wide as their rounding.

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
    dtype = real.dtype if real.is_floating_point() else torch.float64
    origin = real.mean(0, dtype=torch.float64).to(dtype)  # a common offset costs digits
    real, fake = real.to(dtype) - origin, fake.to(dtype) - origin
    of_real, of_fake = _squared_radii(real, k), _squared_radii(fake, k)
    precise: list[Tensor] = []
    recalled = torch.zeros(len(real), dtype=torch.bool)
    for part, radii in zip(torch.split(fake, CHUNK), torch.split(of_fake, CHUNK), strict=True):
        squares = _squares(part, real)
        precise.append((squares - of_real).amin(1) <= 0)
        recalled |= (squares - radii[:, None]).amin(0) <= 0
    return float(torch.cat(precise).double().mean()), float(recalled.double().mean())


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


def _squared_radii(x: Tensor, k: int) -> Tensor:
    """Return the squared distance of every row to its k-th neighbour, rounding added, ``(n,)``."""
    least = x.new_full((len(x), k + 1), torch.inf)
    for start in range(0, len(x), ROWS):
        end = min(start + ROWS, len(x))
        squares = _squares(x[start:end], x[start:])  # each pair once: it serves both its rows
        theirs = squares[:, end - start :].T
        for place, columns in ((slice(start, end), squares), (slice(end, None), theirs)):
            least[place] = torch.cat([least[place], columns], 1).topk(k + 1, largest=False).values
    slack = 8 * torch.finfo(x.dtype).eps * x.square().sum(1).amax()
    return least.amax(1) + slack


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distances ``(n, m)``: |a|^2 + |b|^2 - 2 a.b as one product."""
    norms_a, norms_b = (one.square().sum(1, keepdim=True) for one in (a, b))
    left = torch.cat([-2 * a, norms_a, torch.ones_like(norms_a)], 1)
    right = torch.cat([b, torch.ones_like(norms_b), norms_b], 1)
    return left @ right.T
