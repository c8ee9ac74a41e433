"""Views of a picture: the training crop, the evaluation crop, uint8 from [-1, 1] and back.

Every resize is Pillow's Lanczos filter, which widens with the reduction and so does not alias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenizers_vq.errors import ConfigError


@dataclass(frozen=True)
class Augment:
    """How training crops are drawn.

    Attributes:
        shorter_side: smallest and largest length in pixels that the shorter side of the picture is
            resized to before a crop is cut; default: the crop's size to twice that. No picture is
            enlarged for it, except one that is smaller than the crop.
        flip: mirror half of the crops left to right.

    Raises:
        ConfigError: the range is empty or not positive.
    """

    shorter_side: Sequence[int] | None = None
    flip: bool = True

    def __post_init__(self) -> None:
        if self.shorter_side is None:
            return
        low, high = self.shorter_side
        if not 0 < low <= high:
            raise ConfigError(
                "Augment: expected shorter_side (low, high) with 0 < low <= high; "
                f"got ({low}, {high})."
            )


def draw_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator for item ``index`` of ``epoch``: a function of its arguments alone."""
    return np.random.default_rng([seed % 2**32, epoch, index])


def train_view(
    image: Image.Image, size: int | None, augment: Augment, generator: np.random.Generator
) -> Image.Image:
    """Cut a random square of ``size`` pixels from the picture, at a random scale, maybe mirrored.

    Args:
        image: an RGB picture of any size.
        size: side of the square in pixels; None keeps the whole picture at its own size.
        augment: range of scales, mirroring.
        generator: the only source of chance.
    """
    if size is not None:
        low, high = augment.shorter_side or (size, 2 * size)
        wanted = int(generator.integers(low, high + 1))
        shorter = max(size, min(wanted, *image.size))
        width, height = resized_shape(image, shorter)
        left = int(generator.integers(width - size + 1))
        top = int(generator.integers(height - size + 1))
        image = cut(image, (width, height), (left, top), size)
    if augment.flip and generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def eval_view(image: Image.Image, size: int | None) -> Image.Image:
    """Resize the shorter side to ``size`` pixels, then cut the centre square.

    Args:
        image: an RGB picture of any size.
        size: side of the square in pixels; None keeps the whole picture at its own size.
    """
    if size is None:
        return image
    width, height = resized_shape(image, size)
    return cut(
        image, (width, height), (round((width - size) / 2), round((height - size) / 2)), size
    )


def resized_shape(image: Image.Image, shorter: int) -> tuple[int, int]:
    """Return (width, height) after a resize of the shorter side to ``shorter`` pixels.

    The longer side is rounded down, as torchvision does.
    """
    width, height = image.size
    if width <= height:
        return shorter, shorter * height // width
    return shorter * width // height, shorter


def cut(
    image: Image.Image, resized: tuple[int, int], corner: tuple[int, int], size: int
) -> Image.Image:
    """Return what a resize and then a square crop would give, without making the whole resize.

    A picture of 1 x 1,000 pixels at shorter side 256 would be 256,000 pixels long; here nothing
    larger than the crop is made, and an unchanged scale copies pixels exactly.

    Args:
        image: the picture.
        resized: (width, height) of the whole picture after the resize.
        corner: (left, top) of the crop in the resized picture.
        size: side of the crop in pixels.
    """
    box: list[float] = []
    for start in (corner, (corner[0] + size, corner[1] + size)):
        for position, new, old in zip(start, resized, image.size, strict=True):
            box.append(min(position * old / new, old))
    left, top, right, bottom = box
    return image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, right, bottom))


def to_signal(pixels: Tensor) -> Tensor:
    """Map uint8 of any shape to float32 in [-1, 1]; ``to_uint8`` gives back the same bytes."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(signal: Tensor) -> Tensor:
    """Map [-1, 1] of any shape to uint8: clip, then round to nearest, halves to even; NaN is 0."""
    levels = (signal.to(torch.float32).nan_to_num(nan=-1.0) + 1) * 127.5
    return levels.clamp(0, 255).round().to(torch.uint8)


def image_to_signal(image: Image.Image) -> Tensor:
    """Turn an RGB picture into ``(3, H, W)`` float32 in [-1, 1], contiguous."""
    # numpy, not torch: for work this small torch's threads cost more than they save, and a training
    # loop that loads in its own process would pay that for every picture
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(pixels / np.float32(127.5) - np.float32(1))


def signal_to_image(signal: Tensor) -> Image.Image:
    """Turn ``(3, H, W)`` in [-1, 1] into an RGB picture."""
    return Image.fromarray(to_uint8(signal.detach().cpu()).permute(1, 2, 0).contiguous().numpy())


def difference_hash(image: Image.Image) -> np.ndarray:
    """Return 64 booleans that copies of a picture share up to a few, whatever their size or codec.

    The picture is reduced to 9 x 8 grey pixels; each bit says whether a pixel is brighter than its
    left neighbour.
    """
    grey = image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, dtype=np.int16)
    bits: np.ndarray = (pixels[:, 1:] > pixels[:, :-1]).ravel()
    return bits
