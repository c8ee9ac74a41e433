"""Pixel similarity of paired images: PSNR, SSIM, MS-SSIM on rounded uint8.

Reference:
    Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004,
    eq. 13; Wang, Simoncelli, Bovik, Multiscale Structural Similarity, 2003, eq. 7.
    Written here, not taken from torchmetrics, whose import costs more than scoring 300 images and
    whose SSIM includes a mirrored border.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.base import (
    NO_UPDATE,
    Metric,
    Score,
    State,
    bootstrap,
    check_images,
    choose,
    mean_score,
    skipped,
)
from tokenizers_vq.types import Codes

PSNR_CAP = 99.0  # dB given to identical images, whose PSNR is infinite
WINDOW, SIGMA = 11, 1.5  # px
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_ABOVE = 160  # px: 4 halvings must leave the 11 px window its place
NAMES = ("psnr", "psnr_pooled", "ssim", "ms_ssim")


def mean_squared_error(real: Tensor, fake: Tensor) -> Tensor:
    """Return the squared error per image, ``(B,)`` float64, in grey levels squared (0..65,025).

    Shapes:
        real, fake (B, 3, H, W) uint8.

    Raises:
        ShapeError: another dtype, or two shapes.
    """
    check_images(real, fake, "similarity")
    # squares of grey levels are whole numbers that float32 holds; their sum is float64's: exact
    squares = real.float().sub_(fake).square_().flatten(1)
    return squares.sum(1, dtype=torch.float64) / squares.shape[1]


def psnr(real: Tensor, fake: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio per image, ``(B,)`` float64 in dB, at most 99.

    Shapes:
        real, fake (B, 3, H, W) uint8.
    """
    return psnr_of_error(mean_squared_error(real, fake))


def psnr_of_error(error: Tensor) -> Tensor:
    """Return 10 log10(255^2 / error) in dB, capped at 99 (identical images)."""
    return (10 * torch.log10(255.0**2 / error)).clamp(max=PSNR_CAP)


def ssim(real: Tensor, fake: Tensor) -> Tensor:
    """Return the structural similarity per image, ``(B,)``, at most 1.

    Gaussian window of 11 px and sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance, mean over
    the three channels and the positions whose window lies inside the image. scikit-image's default
    (7x7 uniform window) is another metric; so is the mean with a mirrored border.

    Shapes:
        real, fake (B, 3, H, W) uint8, H and W at least 11.

    Raises:
        ShapeError: another dtype, two shapes, or images smaller than the window.
    """
    check_images(real, fake, "ssim")
    if min(real.shape[-2:]) < WINDOW:
        raise ShapeError(
            f"ssim: expected images of at least {WINDOW} px; got {tuple(real.shape[-2:])}. "
            "Measure whole pictures."
        )
    luminance, structure = _ssim_maps(real.double(), fake.double())
    return (luminance * structure).flatten(1).mean(1)


def ms_ssim(real: Tensor, fake: Tensor) -> Tensor:
    """Return the multi-scale structural similarity per image, ``(B,)`` in 0..1.

    The contrast-structure terms of four scales and the whole index of the fifth, each a mean over
    positions and raised to .0448, .2856, .3001, .2363, .1333; scales are halved by 2x2 means.
    Negative terms count as 0. Mean of the three channels.

    Shapes:
        real, fake (B, 3, H, W) uint8, H and W above 160.

    Raises:
        ShapeError: another dtype, two shapes, or images of 160 px or less.
    """
    check_images(real, fake, "ms_ssim")
    if min(real.shape[-2:]) <= MS_SSIM_ABOVE:
        raise ShapeError(
            f"ms_ssim: expected images of more than {MS_SSIM_ABOVE} px; got "
            f"{tuple(real.shape[-2:])}. Use ssim."
        )
    x, y = real.double(), fake.double()
    product = x.new_ones(x.shape[:2])
    for scale, weight in enumerate(SCALE_WEIGHTS):
        luminance, structure = _ssim_maps(x, y)
        last = scale == len(SCALE_WEIGHTS) - 1
        term = (luminance * structure if last else structure).mean((2, 3))
        product = product * term.clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product.mean(1)


def _ssim_maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the luminance and the contrast-structure map, each ``(B, 3, H - 10, W - 10)``."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    planes = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = _windowed(planes)
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x.square() + yy - mean_y.square()
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def _windowed(planes: Tensor) -> Tensor:
    """Return the Gaussian-weighted local means of ``(..., H, W)``, one axis after the other."""
    taps = torch.arange(WINDOW, dtype=planes.dtype) - WINDOW // 2
    window = torch.exp(-taps.square() / (2 * SIGMA**2))
    weights = (window / window.sum()).tolist()
    for axis in (-2, -1):
        inside = planes.shape[axis] - WINDOW + 1
        # sums of shifted views: 5 times as fast as a float64 convolution
        total = planes.narrow(axis, 0, inside) * weights[0]
        for shift, weight in enumerate(weights[1:], start=1):
            total.add_(planes.narrow(axis, shift, inside), alpha=weight)
        planes = total
    return planes


class Similarity(Metric):
    """PSNR (mean of per-image values, and of the mean error), SSIM and MS-SSIM.

    Args:
        names: which of ``psnr``, ``psnr_pooled``, ``ssim``, ``ms_ssim``.
        resamples: bootstrap draws per interval.
        seed: of the bootstrap.

    Raises:
        ConfigError: ``names`` holds another name.
    """

    def __init__(self, names: Sequence[str] = NAMES, resamples: int = 1000, seed: int = 0) -> None:
        super().__init__(resamples, seed)
        self.names = choose("similarity metric", names, NAMES)
        self.too_small = False

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Add a batch of pairs, uint8 ``(B, 3, H, W)``."""
        error = mean_squared_error(real, fake)
        self._add("mse", error)
        self._add("psnr", psnr_of_error(error))
        if "ssim" in self.names:
            self._add("ssim", ssim(real, fake))
        if "ms_ssim" in self.names:
            if min(real.shape[-2:]) > MS_SSIM_ABOVE:
                self._add("ms_ssim", ms_ssim(real, fake))
            else:
                self.too_small = True

    def compute(self) -> dict[str, Score]:
        """Return one score per chosen name."""
        return {name: self._score(name) for name in self.names}

    def reset(self) -> None:
        """Forget every batch."""
        super().reset()
        self.too_small = False

    def state(self) -> State:
        """Return everything collected."""
        return {**super().state(), "too_small": self.too_small}

    def absorb(self, state: State) -> None:
        """Add another accumulator's images."""
        super().absorb(state)
        self.too_small = self.too_small or state["too_small"]

    def _score(self, name: str) -> Score:
        if name == "psnr_pooled":
            return self._pooled()
        if name == "ms_ssim" and self.too_small:
            return skipped(f"ms_ssim needs images of more than {MS_SSIM_ABOVE} px")
        unit = "dB" if name == "psnr" else ""
        score = mean_score(
            self.values.get(name, []), self.resamples, self.seed, unit=unit, higher=True
        )
        if name == "psnr":
            capped = sum(value >= PSNR_CAP for value in self.values.get("psnr", []))
            score.detail["identical_images_counted_as_99_dB"] = capped
        return score

    def _pooled(self) -> Score:
        error = torch.tensor(self.values.get("mse", []), dtype=torch.float64)
        if not len(error):
            return skipped(NO_UPDATE)
        interval = bootstrap(
            lambda rows: float(psnr_of_error(error[rows].mean())),
            len(error),
            self.resamples,
            self.seed,
        )
        return Score(float(psnr_of_error(error.mean())), len(error), interval, "dB", True)
