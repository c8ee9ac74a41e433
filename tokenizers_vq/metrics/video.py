"""Numbers of videos: those of their frames, and of what changes between frames.

Videos are ``(B, 3, T, H, W)`` uint8. A video's PSNR is the mean over its frames of their PSNR, not
the PSNR of the mean error, which is never higher.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError, check_shape
from tokenizers_vq.metrics.similarity import psnr, psnr_of_error, ssim


def frame_psnr(real: Tensor, fake: Tensor) -> Tensor:
    """Return the PSNR of every frame, ``(B, T)`` float64 in dB, at most 99.

    Raises:
        ShapeError: another dtype, or two shapes.
    """
    return psnr(_frames(real), _frames(fake)).reshape(real.shape[0], -1)


def frame_ssim(real: Tensor, fake: Tensor) -> Tensor:
    """Return the SSIM of every frame, ``(B, T)``; see ``similarity.ssim``.

    Raises:
        ShapeError: another dtype, two shapes, or frames smaller than the window.
    """
    return ssim(_frames(real), _frames(fake)).reshape(real.shape[0], -1)


def change_psnr(real: Tensor, fake: Tensor) -> Tensor:
    """Return the PSNR of the differences between frames, ``(B,)`` float64 in dB, at most 99.

    Flicker lowers it: an error that stays the same from frame to frame does not count, one that
    comes and goes counts twice. Differences are compared with the largest grey level, 255.

    Raises:
        ShapeError: another rank, two shapes, or a single frame.
    """
    _frames(real), _frames(fake)
    if real.shape != fake.shape or real.shape[2] < 2:
        raise ShapeError(
            f"change_psnr: expected two videos of one shape and at least 2 frames; got "
            f"{tuple(real.shape)} and {tuple(fake.shape)}. Pictures do not change."
        )
    error = torch.diff(fake.double() - real.double(), dim=2)
    return psnr_of_error(error.square().flatten(1).mean(1))


def _frames(x: Tensor) -> Tensor:
    check_shape(x, "B 3 T H W", "metrics.video", "Videos are channels first.")
    return x.transpose(1, 2).flatten(0, 1)
