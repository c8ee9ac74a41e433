"""Read any picture file as 8-bit RGB, or say in a few words why it cannot be read."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tokenizers_vq.errors import ConfigError, DataError

BACKGROUND = (255, 255, 255)
"""Transparent pixels are laid on this colour."""


def read_rgb(path: str | Path) -> Image.Image:
    """Return the picture in the file as RGB.

    The first frame of an animation, turned upright by its EXIF orientation. Grey is repeated,
    palettes are looked up, transparency is laid on white, 16-bit grey is scaled by 255 / 65535 and
    rounded (Pillow itself keeps the high byte of 16-bit colour), float samples must be in [0, 1],
    CMYK is converted without its colour profile.

    Raises:
        DataError: the file is missing, empty, truncated, broken or not a picture.
    """
    image = try_read_rgb(path)
    if isinstance(image, str):
        raise DataError(f"read_rgb: expected a picture in '{path}'; got {image}.")
    return image


def check_picture_name(path: Path) -> None:
    """Raise ``ConfigError`` unless Pillow can write a file of that name."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ConfigError(
            f"decode: expected the name of a picture that Pillow can write; got {path}. "
            "Name it .png or .webp."
        )


def try_read_rgb(path: str | Path) -> Image.Image | str:
    """Return the picture in the file as RGB, or the reason why there is none."""
    try:
        with warnings.catch_warnings():
            # Pillow warns about large pictures, palettes and odd EXIF: all of them readable.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                return _to_rgb(_upright(image))
    except Exception as error:  # on broken bytes Pillow's readers raise almost any type
        return _reason(path, error)


def try_open(path: str | Path) -> str | None:
    """Return why the header of the file cannot be read, or None if it can; decodes no pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path):
                return None
    except Exception as error:  # as above
        return _reason(path, error)


def _reason(path: str | Path, error: Exception) -> str:
    """Say in a few words what is wrong with the file."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "not allowed to read it"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture" if Path(path).stat().st_size else "an empty file"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    if "truncated" in str(error).lower():
        return "truncated"
    return f"broken ({type(error).__name__}: {str(error)[:80]})"


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; damaged EXIF data is no reason to lose the picture."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # parsing EXIF raises as freely as parsing pictures
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB.

    Raises:
        ValueError: samples whose white level nobody knows.
    """
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        front = image.convert("RGBA")
        back = Image.new("RGBA", front.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(back, front)
    return image.convert("RGB")


def _eight_bits(samples: np.ndarray) -> np.ndarray:
    """Scale integer samples from 0..65535, float samples from [0, 1], to uint8."""
    is_float = samples.dtype.kind == "f"
    white = 1.0 if is_float else 65535.0
    low, high = float(samples.min()), float(samples.max())
    if not (low >= 0 and high <= white):
        raise ValueError(f"samples {low:g} to {high:g} are outside 0 to {white:g}")
    scaled: np.ndarray = np.round(samples.astype(np.float64) * (255 / white)).astype(np.uint8)
    return scaled
