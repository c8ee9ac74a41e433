"""Pixel similarity of paired images: PSNR, SSIM, MS-SSIM on rounded uint8.

Reference:
    Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004,
    eq. 13; Wang, Simoncelli, Bovik, Multiscale Structural Similarity, 2003, eq. 7.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.metrics.base import (
    NO_UPDATE,
    Metric,
    Score,
    bootstrap,
    check_images,
    choose,
    mean_score,
    skipped,
)
from tokenizers_vq.types import Codes

PSNR_CAP = 99.0  # dB given to identical images, whose PSNR is infinite
BORDER = 5  # px: half of the 11 px window
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
    return (real.double() - fake.double()).square().flatten(1).mean(1)


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
    (7x7 uniform window) is another metric; so is the mean with the mirrored border.

    Shapes:
        real, fake (B, 3, H, W) uint8, H and W at least 11.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    check_images(real, fake, "ssim")
    # float64: in float32 the local variances lose about 1e-5 of SSIM on bright, flat regions
    _, full = structural_similarity_index_measure(
        fake.double(),
        real.double(),
        sigma=1.5,
        data_range=255.0,
        reduction="none",
        return_full_image=True,
    )
    return full[..., BORDER:-BORDER, BORDER:-BORDER].flatten(1).mean(1)


def ms_ssim(real: Tensor, fake: Tensor) -> Tensor:
    """Return the multi-scale structural similarity per image, ``(B,)`` in 0..1.

    Five scales with the weights .0448, .2856, .3001, .2363, .1333 of the paper, as torchmetrics
    computes it (the border is mirrored at the coarsest scale).

    Shapes:
        real, fake (B, 3, H, W) uint8, H and W above 160.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    check_images(real, fake, "ms_ssim")
    values = multiscale_structural_similarity_index_measure(
        fake.double(), real.double(), sigma=1.5, data_range=255.0, reduction="none"
    )
    return values.reshape(-1).double()


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

    def merge(self, other: Metric) -> None:
        """Add another accumulator's images."""
        super().merge(other)
        self.too_small = self.too_small or bool(getattr(other, "too_small", False))

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
