"""Functions of videos: of their frames, and of what changes between frames.

Videos are ``(B, 3, T, H, W)`` uint8. A video's PSNR is the mean over its frames of their PSNR, not
the PSNR of the mean error, which is never higher.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError, check_shape
from tokenizers_vq.metrics.similarity import psnr, psnr_of_error, ssim

REMEMBERED = 2  # videos: the originals and one reconstruction are asked for by several metrics


def frame_psnr(real: Tensor, fake: Tensor) -> Tensor:
    """Return the PSNR of every frame, ``(B, T)`` float64 in dB, at most 99.

    Raises:
        ShapeError: another dtype, or two shapes.
    """
    return psnr(frames_of(real), frames_of(fake)).reshape(real.shape[0], -1)


def frame_ssim(real: Tensor, fake: Tensor) -> Tensor:
    """Return the SSIM of every frame, ``(B, T)``; see ``similarity.ssim``.

    Raises:
        ShapeError: another dtype, two shapes, or frames smaller than the window.
    """
    return ssim(frames_of(real), frames_of(fake)).reshape(real.shape[0], -1)


def change_psnr(real: Tensor, fake: Tensor) -> Tensor:
    """Return the PSNR of the differences between frames, ``(B,)`` float64 in dB, at most 99.

    Flicker lowers it: an error that stays the same from frame to frame does not count, one that
    comes and goes counts twice. Differences are compared with the largest grey level, 255.

    Raises:
        ShapeError: another rank, two shapes, or a single frame.
    """
    _check_changes(real, fake, "change_psnr")
    error = torch.diff(fake.double() - real.double(), dim=2)
    return psnr_of_error(error.square().flatten(1).mean(1))


def flicker(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Return the change between frames that was added, and that was lost, ``(B,)`` float64 each.

    With d the absolute difference of a sample from the frame before it, in grey levels: the means
    over samples of ``max(0, d_fake - d_real)`` and of ``max(0, d_real - d_fake)``. What stands
    still in the original and shimmers in the reconstruction is all added; what moves in the
    original and stands still is all lost. An error that stays the same is neither.

    Raises:
        ShapeError: another rank, two shapes, or a single frame.
    """
    _check_changes(real, fake, "flicker")
    before, after = (torch.diff(x.short(), dim=2).abs().flatten(1) for x in (real, fake))
    surplus = (after - before).double()
    return surplus.clamp(min=0).mean(1), (-surplus).clamp(min=0).mean(1)


def frames_of(x: Tensor) -> Tensor:
    """Return the frames ``(B * T, 3, H, W)`` of videos, the same tensor for the same videos.

    Networks that remember the pictures they have seen know them again by that.

    Raises:
        ShapeError: another rank or number of channels.
    """
    check_shape(x, "B 3 T H W", "metrics.video", "Videos are channels first.")
    found = next((frames for known, frames in _MEMORY if known is x), None)
    frames = x.transpose(1, 2).flatten(0, 1) if found is None else found
    others = [one for one in _MEMORY if one[0] is not x]
    _MEMORY[:] = [*others, (x, frames)][-REMEMBERED:]
    return frames


_MEMORY: list[tuple[Tensor, Tensor]] = []


def _check_changes(real: Tensor, fake: Tensor, where: str) -> None:
    check_shape(real, "B 3 T H W", where, "Videos are channels first.")
    if real.shape != fake.shape or real.shape[2] < 2:
        raise ShapeError(
            f"{where}: expected two videos of one shape and at least 2 frames; got "
            f"{tuple(real.shape)} and {tuple(fake.shape)}. Pictures do not change."
        )
