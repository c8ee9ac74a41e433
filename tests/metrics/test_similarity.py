import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.metrics.similarity import Similarity, ms_ssim, psnr, ssim


def photo(size: int = 64, seed: int = 0) -> torch.Tensor:
    """A smooth picture (3, size, size) uint8: noise at 1/8 of the size, enlarged."""
    small = torch.rand(1, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(small, size=size, mode="bicubic", align_corners=False)
    return (large.clamp(0, 1) * 255).round().byte()[0]


def noisy(image: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)) * sigma
    return (image + noise).round().clamp(0, 255).byte()


@pytest.mark.parametrize("sigma", [2.0, 10.0, 40.0])
def test_psnr_and_ssim_equal_scikit_image(sigma):
    a = photo()
    b = noisy(a, sigma)
    x, y = (t.permute(1, 2, 0).numpy() for t in (a, b))
    assert float(psnr(a[None], b[None])) == pytest.approx(
        peak_signal_noise_ratio(x, y, data_range=255), abs=1e-9
    )
    reference = structural_similarity(
        x.astype(np.float64), y.astype(np.float64), data_range=255, channel_axis=2,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert float(ssim(a[None], b[None])) == pytest.approx(reference, abs=1e-6)


def numpy_ms_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang 2003 from skimage's maps, by hand: contrast-structure at 4 scales, SSIM at the 5th."""
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    constants = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    per_channel = []
    for channel in range(3):
        a, b = x[..., channel].astype(np.float64), y[..., channel].astype(np.float64)
        product = 1.0
        for scale, weight in enumerate(weights):
            if scale < 4:
                # with K1 tiny and both means shifted far up, the luminance term is 1
                value = structural_similarity(
                    a + 1e6, b + 1e6, data_range=255, K1=1e-9, **constants
                )
            else:
                value = structural_similarity(a, b, data_range=255, **constants)
            product *= max(value, 0.0) ** weight
            h, w = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
            a, b = (
                (t[:h:2, :w:2] + t[1:h:2, :w:2] + t[:h:2, 1:w:2] + t[1:h:2, 1:w:2]) / 4
                for t in (a, b)
            )
        per_channel.append(product)
    return float(np.mean(per_channel))


def test_ms_ssim_is_close_to_the_formula():
    a = photo(192)
    b = noisy(a, 20)
    reference = numpy_ms_ssim(*(t.permute(1, 2, 0).numpy() for t in (a, b)))
    assert float(ms_ssim(a[None], b[None])) == pytest.approx(reference, abs=1e-4)


def test_identical_images_are_perfect_and_counted():
    a = photo(176)[None]
    metric = Similarity(resamples=0)
    metric.update(a, a.clone())
    scores = metric.compute()
    assert scores["psnr"].value == 99.0
    assert scores["psnr"].detail == {"identical_images_counted_as_99_dB": 1}
    assert scores["ssim"].value == pytest.approx(1, abs=1e-12)
    assert scores["ms_ssim"].value == pytest.approx(1, abs=1e-6)


def test_mean_of_psnr_is_above_psnr_of_the_mean_error():
    a = torch.stack([photo(), photo(seed=1)])
    b = torch.stack([noisy(a[0], 2), noisy(a[1], 30)])
    metric = Similarity(("psnr", "psnr_pooled"), resamples=50)
    metric.update(a, b)
    scores = metric.compute()
    assert scores["psnr"].value > scores["psnr_pooled"].value
    mse = ((a.double() - b.double()) ** 2).flatten(1).mean()
    assert scores["psnr_pooled"].value == pytest.approx(float(10 * torch.log10(255**2 / mse)))
    low, high = scores["psnr"].interval
    assert low <= scores["psnr"].value <= high


def test_damage_ladder_is_monotone():
    a = photo(176)[None]
    ladder = [noisy(a, sigma) for sigma in (2, 5, 15, 40)]
    for function in (psnr, ssim, ms_ssim):
        scores = [float(function(a, b)) for b in ladder]
        assert scores == sorted(scores, reverse=True)


def test_ms_ssim_says_when_images_are_too_small():
    metric = Similarity(("ms_ssim",))
    metric.update(photo()[None], photo()[None])
    score = metric.compute()["ms_ssim"]
    assert (score.status, score.reason) == ("skipped", "ms_ssim needs images of more than 160 px")


def test_unknown_name_and_unequal_shapes_are_refused():
    with pytest.raises(ConfigError) as error:
        Similarity(("psnrr",))
    assert str(error.value) == (
        "similarity metric: there is no 'psnrr'; choose one of ms_ssim, psnr, psnr_pooled, ssim."
    )
    with pytest.raises(ShapeError) as error:
        psnr(photo(64)[None], photo(32)[None])
    assert str(error.value) == (
        "similarity: expected two batches of one shape; got (1, 3, 64, 64) and (1, 3, 32, 32). "
        "Crop the padding first."
    )
