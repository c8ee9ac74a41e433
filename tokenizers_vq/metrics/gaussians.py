"""The Gaussian of a set of features, summed in float64 without keeping the features.

Reference:
    Dowson and Landau, The Frechet Distance between Multivariate Normal Distributions, 1982, eq. 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError, check_shape
from tokenizers_vq.metrics.base import State


class Moments:
    """Count, sum and sum of outer products of features, in float64: 8 d^2 bytes, whatever n is.

    Sums are taken around the mean of the first batch, so that a large mean costs no digits.

    Args:
        dim: width d of the features.
    """

    def __init__(self, dim: int) -> None:
        self.dim, self.n = dim, 0
        self.origin: Tensor | None = None
        self.total = torch.zeros(dim, dtype=torch.float64)
        self.outer = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add ``(n, d)`` features.

        Raises:
            ShapeError: they have another width.
        """
        check_shape(features, f"n {self.dim}", "Moments")
        x = features.detach().cpu().double()
        if self.origin is None and len(x):
            self.origin = x.mean(0)
        if self.origin is not None:
            x = x - self.origin
            self.n += len(x)
            self.total += x.sum(0)
            self.outer.addmm_(x.T, x)

    def state(self) -> State:
        """Return the sums, for ``absorb``."""
        return {"n": self.n, "origin": self.origin, "total": self.total, "outer": self.outer}

    def absorb(self, state: State) -> None:
        """Add the features of another one, as its ``state`` says."""
        n, origin, total = state["n"], state["origin"], state["total"]
        if origin is None:
            return
        if self.origin is None:
            self.origin = origin.clone()
        shift = origin - self.origin  # x - a = (x - b) + (b - a)
        cross = torch.outer(total, shift)
        self.outer += state["outer"] + cross + cross.T + n * torch.outer(shift, shift)
        self.total += total + n * shift
        self.n += n

    @property
    def mean(self) -> Tensor:
        """The mean ``(d,)`` float64."""
        origin = torch.zeros(self.dim, dtype=torch.float64) if self.origin is None else self.origin
        return origin + self.total / max(self.n, 1)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance ``(d, d)`` float64.

        Raises:
            ShapeError: there are fewer than two features.
        """
        if self.n < 2:
            raise ShapeError(
                f"Moments: expected at least 2 features; got {self.n}. Give more images."
            )
        mean = self.total / self.n
        return (self.outer - self.n * torch.outer(mean, mean)) / (self.n - 1)


def moments_distance(x: Moments, y: Moments) -> float:
    """Return the squared Frechet distance of two Gaussians given by their moments.

    The trace of (S_x S_y)^(1/2) is the sum of the roots of the eigenvalues of R S_y R with
    R = S_x^(1/2), all of them symmetric. With fewer features than dimensions the round-off of
    eigenvalues that should be zero costs about 1e-4 (``frechet_distance`` on kept features is
    exact there); nothing is added to the diagonal.
    """
    values, vectors = torch.linalg.eigh(x.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = torch.linalg.eigvalsh(root @ y.covariance @ root)
    distance = (x.mean - y.mean).square().sum() + x.covariance.trace() + y.covariance.trace()
    return max(float(distance - 2 * inner.clamp(min=0).sqrt().sum()), 0.0)
