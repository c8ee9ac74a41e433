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

import torch
from torch import Tensor

from tokenizers_vq.errors import MissingExtraError, ShapeError, check_shape, unknown_name
from tokenizers_vq.metrics.base import Metric, Score, bootstrap, check_images, skipped
from tokenizers_vq.metrics.extractors import Extractor, extractor
from tokenizers_vq.types import Codes

NAMES = {"efflite0": ("rFD-EffLite0", "rKD-EffLite0"), "inception": ("rFID", "rKID")}
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


def kernel_distance(x: Tensor, y: Tensor, seed: int = 0) -> float:
    """Return the unbiased squared MMD with the kernel (a.b / d + 1)^3 of two paired sets.

    Row i of ``x`` and of ``y`` are the same picture, so the diagonal is dropped from the cross
    kernel as well; with it, a set against itself would come out negative. Sets of more than 1,000
    are averaged over 100 seeded subsets of 1,000. May be slightly negative.

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
        return _paired_mmd(x.double(), y.double())
    generator = torch.Generator().manual_seed(seed)
    picks = [torch.randperm(len(x), generator=generator)[:SUBSET] for _ in range(SUBSETS)]
    values = [_paired_mmd(x[rows].double(), y[rows].double()) for rows in picks]
    return sum(values) / len(values)


class Fidelity(Metric):
    """Frechet and kernel distance on the features of one extractor.

    ``rFID`` is only ever computed with the published Inception weights; without the file the score
    says ``skipped``. With EfficientNet-Lite0 the names are ``rFD-EffLite0`` and ``rKD-EffLite0``,
    whose scale has nothing to do with FID.

    Args:
        extractor: ``efflite0`` or ``inception``.
        weights: local weights files by key, e.g. ``{"inception-2015-12-05": "weights.pth"}``.
        resamples: bootstrap draws, pairs kept together; 200 are plenty for a Frechet distance.
        seed: of the bootstrap.

    Raises:
        ConfigError: there is no such extractor.
        CheckpointError: a weights file is not the published one.
    """

    def __init__(
        self,
        extractor: str = "efflite0",
        weights: Mapping[str, str] | None = None,
        resamples: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__(min(resamples, 200), seed)
        if extractor not in NAMES:
            raise unknown_name("extractor", extractor, NAMES)
        self.names = NAMES[extractor]
        self.network, self.reason = _try(extractor, weights)
        self.real: list[Tensor] = []
        self.fake: list[Tensor] = []
        self.sizes: set[tuple[int, int]] = set()

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Add the features of a batch of pairs, uint8 ``(B, 3, H, W)``; 2 x 4d bytes per pair."""
        check_images(real, fake, "fidelity")
        if self.network is not None:
            self.real.append(self.network(real).pooled)
            self.fake.append(self.network(fake).pooled)
            self.sizes.add((int(real.shape[-2]), int(real.shape[-1])))

    def compute(self) -> dict[str, Score]:
        """Return the two distances, or why there are none."""
        if self.network is None:
            return dict.fromkeys(self.names, skipped(self.reason))
        n = sum(map(len, self.real))
        if n < NEEDS:
            return dict.fromkeys(self.names, skipped(f"needs at least {NEEDS} images, has {n}"))
        real, fake = torch.cat(self.real), torch.cat(self.fake)
        interval = bootstrap(
            lambda rows: frechet_distance(real[rows], fake[rows]), n, self.resamples, self.seed
        )
        detail = {
            "extractor": self.network.id,
            "input_px": sorted(f"{height}x{width}" for height, width in self.sizes),
            "paired": True,
            "regularisation": "none",
        }
        values = (frechet_distance(real, fake), kernel_distance(real, fake, self.seed))
        return {
            self.names[0]: Score(values[0], n, interval, "", False, detail=detail),
            self.names[1]: Score(values[1], n, None, "", False, detail=detail),
        }

    def reset(self) -> None:
        """Forget every batch."""
        super().reset()
        self.real, self.fake, self.sizes = [], [], set()

    def merge(self, other: Metric) -> None:
        """Add another accumulator's features."""
        if isinstance(other, Fidelity):
            self.real += other.real
            self.fake += other.fake
            self.sizes |= other.sizes


def _try(name: str, weights: Mapping[str, str] | None) -> tuple[Extractor | None, str]:
    """Return the extractor, or None with the reason."""
    try:
        return extractor(name, weights), ""
    except MissingExtraError as missing:
        return None, str(missing)


def _centred_factor(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean ``(d,)`` and a factor A with A^T A = covariance, float64."""
    x = x.double()
    mean = x.mean(0)
    factor = (x - mean) / (len(x) - 1) ** 0.5
    if len(x) > x.shape[1]:
        factor = torch.linalg.qr(factor, mode="r").R
    return mean, factor


def _paired_mmd(x: Tensor, y: Tensor) -> float:
    n, d = x.shape
    off = ~torch.eye(n, dtype=torch.bool)
    terms = [((a @ b.T) / d + 1).pow(3)[off].mean() for a, b in ((x, x), (y, y), (x, y))]
    return float(terms[0] + terms[1] - 2 * terms[2])
