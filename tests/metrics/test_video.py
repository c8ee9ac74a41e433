import pytest
import torch

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.similarity import psnr, ssim
from tokenizers_vq.metrics.video import change_psnr, frame_psnr, frame_ssim


def videos():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 2, 3, 4, 12, 12), dtype=torch.uint8, generator=generator)


def test_frames_are_measured_one_by_one():
    real, fake = videos()
    for function, of_pictures in ((frame_psnr, psnr), (frame_ssim, ssim)):
        found = function(real, fake)
        assert found.shape == (2, 4)
        for t in range(4):
            torch.testing.assert_close(found[:, t], of_pictures(real[:, :, t], fake[:, :, t]))


def test_the_mean_of_frames_is_never_below_that_of_their_error():
    real = torch.zeros(1, 3, 2, 12, 12, dtype=torch.uint8)
    fake = real.clone()
    fake[:, :, 0], fake[:, :, 1] = 51, 5
    # 20 log10(255 / 51) = 13.9794 and 20 log10(51) = 34.1514 dB
    assert frame_psnr(real, fake)[0].tolist() == pytest.approx([13.97940, 34.15140], abs=1e-4)


def test_a_constant_error_does_not_flicker_and_one_that_alternates_counts_twice():
    real = torch.full((1, 3, 5, 4, 4), 100, dtype=torch.uint8)
    assert float(change_psnr(real, real + 10)) == 99
    fake = real.clone()
    fake[:, :, ::2] += 10
    # the changes are off by 10: 20 log10(25.5)
    assert float(change_psnr(real, fake)) == pytest.approx(28.13080, abs=1e-4)


def test_pictures_are_refused():
    real, fake = videos()
    with pytest.raises(ShapeError) as error:
        change_psnr(real[:, :, :1], fake[:, :, :1])
    assert str(error.value) == (
        "change_psnr: expected two videos of one shape and at least 2 frames; got "
        "(2, 3, 1, 12, 12) and (2, 3, 1, 12, 12). Pictures do not change."
    )
    with pytest.raises(ShapeError, match=r"expected shape \(B, 3, T, H, W\); got \(3, 4, 12, 12\)"):
        frame_psnr(real[0], fake[0])
