"""Distances between the distributions of real and reconstructed images.

Reference:
    Dowson and Landau, The Frechet Distance between Multivariate Normal Distributions, 1982, eq. 4;
    Heusel et al., GANs Trained by a Two Time-Scale Update Rule, 2017, eq. 6;
    Binkowski et al., Demystifying MMD GANs, 2018, eq. 4.
    Differs from the usual code: the trace of the root comes from the singular values of the
    product of the centred features, which is exact for singular covariances and needs no
    regularisation; reconstructions are paired, so the kernel distance drops the pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError, check_shape, unknown_name
from tokenizers_vq.metrics.base import Score, State, bootstrap, skipped
from tokenizers_vq.metrics.extractors import Features
from tokenizers_vq.metrics.feature_sets import FeatureSets
from tokenizers_vq.metrics.gaussians import Moments, moments_distance
from tokenizers_vq.types import Codes

NAMES = {  # what a distance in a feature space is called
    "efflite0": ("rFD-EffLite0", "rKD-EffLite0"),
    "inception": ("rFID", "rKID"),  # TF1 bilinear: the ADM suite and torch-fidelity
    "inception/spatial": ("rsFID", "rsKID"),
    "inception-clean": ("rFID-clean", "rKID-clean"),  # clean-fid
    "inception-halfpixel": ("rFID-halfpixel", "rKID-halfpixel"),  # pytorch-fid
    "dinov2": ("rFDD", "rKDD"),
    "efflite0-clip": ("rFD-EffLite0-clip", "rKD-EffLite0-clip"),  # ours; never called FVD
    "i3d": ("rFVD", "rKVD"),
}
KEEP = 5000  # images: 8 KB each and side at 2,048 features
NEEDS = 2  # images: a covariance of one image does not exist
SUBSET = 1000  # images per kernel-distance subset; smaller sets are used whole
SUBSETS = 100


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return the squared Frechet distance of the Gaussians fitted to two sets of features.

    |m_x - m_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2), where the last trace is the sum of the
    singular values of X Y^T for centred X, Y divided by sqrt(n - 1). Computed in float64.

    Args:
        x: ``(n, d)`` features, n at least 2.
        y: ``(m, d)`` features, m at least 2.

    Raises:
        ShapeError: the widths differ, or a set has fewer than 2 rows.
    """
    check_shape(x, "n d", "frechet_distance")
    check_shape(y, f"m {x.shape[1]}", "frechet_distance")
    if min(len(x), len(y)) < NEEDS:
        raise ShapeError(
            f"frechet_distance: expected at least 2 rows on both sides; got {len(x)} and {len(y)}. "
            "Give more images."
        )
    mean_x, factor_x = _centred_factor(x)
    mean_y, factor_y = _centred_factor(y)
    root = torch.linalg.svdvals(factor_x @ factor_y.T).sum()
    distance = (mean_x - mean_y).square().sum()
    distance += factor_x.square().sum() + factor_y.square().sum() - 2 * root
    return max(float(distance), 0.0)  # round-off of identical sets is about -1e-13


def kernel_distance(x: Tensor, y: Tensor, seed: int = 0, *, paired: bool = True) -> float:
    """Return the unbiased squared MMD with the kernel (a.b / d + 1)^3 of two sets of one size.

    Row i of ``x`` and of ``y`` are the same picture, so the diagonal is dropped from the cross
    kernel as well; with it, a set against itself would come out negative. Sets of more than 1,000
    are averaged over 100 seeded subsets of 1,000. May be slightly negative. Without ``paired`` the
    cross kernel is whole, as other suites have it.

    Shapes:
        x, y (n, d), n at least 2.

    Raises:
        ShapeError: the sets are not of one shape, or smaller than 2.
    """
    check_shape(x, "n d", "kernel_distance")
    if x.shape != y.shape or len(x) < NEEDS:
        raise ShapeError(
            f"kernel_distance: expected two sets of one shape with at least 2 rows; got "
            f"{tuple(x.shape)} and {tuple(y.shape)}. Pair the images."
        )
    if len(x) <= SUBSET:
        return _mmd(x, y, paired=paired)
    generator = torch.Generator().manual_seed(seed)
    picks = [torch.randperm(len(x), generator=generator)[:SUBSET] for _ in range(SUBSETS)]
    values = [_mmd(x[rows], y[rows], paired=paired) for rows in picks]
    return sum(values) / len(values)


class Fidelity(FeatureSets):
    """Frechet and kernel distance on the features of one extractor.

    The features of up to 5,000 images are kept, for an exact distance, an interval and the kernel
    distance. Beyond them both sides are folded into float64 moments, ``Moments``, and only the
    Frechet distance is given.

    Args:
        extractor: a name in ``NAMES``; what it is compared by is printed under that name alone.
        layer: ``pooled``, or ``spatial`` for the sFID of Nash et al., 2021.
        weights: local weights files by key, e.g. ``{"inception-2015-12-05": "file.pth"}``.
        resamples: bootstrap draws, pairs kept together; 200 are plenty for a Frechet distance.
        seed: of the bootstrap.
        keep: images whose features are kept.

    Raises:
        ConfigError: there is no such extractor, or it has no such layer.
        CheckpointError: a weights file is not the published one.
    """

    def __init__(
        self,
        extractor: str = "efflite0",
        layer: str = "pooled",
        weights: Mapping[str, str] | None = None,
        resamples: int = 200,
        seed: int = 0,
        keep: int = KEEP,
    ) -> None:
        key = extractor if layer == "pooled" else f"{extractor}/{layer}"
        if key not in NAMES:
            raise unknown_name("extractor", key, NAMES)
        super().__init__(extractor, weights, resamples, seed)
        self.names, self.layer, self.keep = NAMES[key], layer, keep
        self.folded: tuple[Moments, Moments] | None = None

    def select(self, features: Features) -> Tensor:
        """Return the chosen layer."""
        layer: Tensor = getattr(features, self.layer)
        return layer

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Add the features of a batch of pairs, uint8 ``(B, 3, H, W)``."""
        super().update(real, fake, codes)
        self._fold()

    def compute(self) -> dict[str, Score]:
        """Return the two distances, or why there are none."""
        if self.folded is None:
            return super().compute()
        real, fake = self.folded
        detail = {**self.detail(), "method": "moments"}
        value = moments_distance(real, fake)
        reason = f"the features of more than {self.keep:,} images are not kept"
        return {
            self.names[0]: Score(value, real.n, None, "", False, detail=detail),
            self.names[1]: skipped(reason),
        }

    def scores(self, real: Tensor, fake: Tensor) -> dict[str, Score]:
        """Return the two distances of kept features."""
        n = len(real)
        interval = bootstrap(
            lambda rows: frechet_distance(real[rows], fake[rows]), n, self.resamples, self.seed
        )
        detail = {**self.detail(), "method": "singular values", "below_dim": n <= real.shape[1]}
        values = (frechet_distance(real, fake), kernel_distance(real, fake, self.seed))
        return {
            self.names[0]: Score(values[0], n, interval, "", False, detail=detail),
            self.names[1]: Score(values[1], n, None, "", False, detail=detail),
        }

    def detail(self) -> dict[str, Any]:
        """Return what was compared, and that nothing was added to a diagonal."""
        return {**super().detail(), "layer": self.layer, "regularisation": "none"}

    def reset(self) -> None:
        """Forget every batch."""
        super().reset()
        self.folded = None

    def state(self) -> State:
        """Return the features, or the moments of both sides."""
        folded = self.folded and [moments.state() for moments in self.folded]
        return {**super().state(), "folded": folded}

    def absorb(self, state: State) -> None:
        """Add another accumulator's features, or its moments."""
        super().absorb(state)
        if state["folded"] is not None:
            self.folded = self.folded or _empty(len(state["folded"][0]["total"]))
            for mine, its in zip(self.folded, state["folded"], strict=True):
                mine.absorb(its)
        self._fold()

    def _fold(self) -> None:
        """Replace the features by their moments once there are too many to keep."""
        if self.folded is None and sum(map(len, self.real)) <= self.keep:
            return
        if self.folded is None:
            self.folded = _empty(self.real[0].shape[1])
        for moments, batches in zip(self.folded, (self.real, self.fake), strict=True):
            for batch in batches:
                moments.add(batch)
        self.real, self.fake = [], []


def _empty(dim: int) -> tuple[Moments, Moments]:
    return Moments(dim), Moments(dim)


def _centred_factor(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean ``(d,)`` and a factor A with A^T A = covariance, float64."""
    x = x.double()
    mean = x.mean(0)
    factor = (x - mean) / (len(x) - 1) ** 0.5
    if len(x) > x.shape[1]:
        factor = torch.linalg.qr(factor, mode="r").R
    return mean, factor


def _mmd(x: Tensor, y: Tensor, *, paired: bool) -> float:
    if paired and torch.equal(x, y):
        return 0.0
    x, y = (one * one.shape[1] ** -0.5 for one in (x, y))
    of_x, of_y = (one.sum(0, dtype=torch.float64) for one in (x, y))
    within = _kernel_mean(x, x, of_x @ of_x, pairs=False)
    within += _kernel_mean(y, y, of_y @ of_y, pairs=False)
    return within - 2 * _kernel_mean(x, y, of_x @ of_y, pairs=not paired)


def _kernel_mean(a: Tensor, b: Tensor, linear: Tensor, *, pairs: bool) -> float:
    """Return the mean of (1 + t)^3 - 1, t = a.b, over all rows, with or without those of pairs.

    The ones cancel in a distance. (1 + t)^3 - 1 = 3 t + t^2 (3 + t), and the sum of all t,
    ``linear``, is exact without them, so the products may have the precision of the features.
    """
    n = len(a)
    products = torch.from_numpy(a.numpy() @ b.numpy().T)  # NumPy: half the time where a is b
    higher = sum(_higher(part) for part in torch.split(products, 64))  # 64 rows stay in the cache
    total = 3 * float(linear) + higher
    if pairs:
        return total / n**2
    own = torch.linalg.vecdot(a, b)
    return (total - 3 * float(own.sum(dtype=torch.float64)) - _higher(own[:, None])) / (n * (n - 1))


def _higher(t: Tensor) -> float:
    """Return the sum of t^2 (3 + t) over ``(n, m)``; ``t`` is overwritten."""
    return float(torch.linalg.vecdot(t.square(), t.add_(3)).sum(dtype=torch.float64))
