"""JPEG, JPEG 2000, WebP and AVIF at real file sizes: what a tokenizer has to be compared with.

A codec is given as many bytes as the tokenizer's own file has, container included on both sides,
and may use them in two ways: ``own size`` keeps the picture's size, ``best scale`` may shrink the
picture first and enlarge it after decoding, which is what anybody short of bytes would do.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tokenizers_vq.errors import ConfigError, ShapeError, unknown_name

CODECS: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "optimize": True, "progressive": True},
    # the bare codestream: no boxes around it; the 9/7 wavelet
    "jpeg2000": {"format": "JPEG2000", "irreversible": True, "no_jp2": True},
    "webp": {"format": "WEBP", "method": 6},
    "avif": {"format": "AVIF", "speed": 6, "max_threads": 1},
}
QUALITIES = {"jpeg": (1, 95), "jpeg2000": (0, 500), "webp": (0, 100), "avif": (0, 100)}
LEAST_RATE = 1024.0  # JPEG 2000 has no quality but a rate: 1:1024 at 0, 1:1.02 at 500
SCALES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.125)
RULES = ("own_size", "best_scale")
SMALLEST_SIDE = 8  # px: below it a shrunk picture says nothing


class Encoded(NamedTuple):
    """A picture after a codec.

    Attributes:
        image: ``(H, W, 3)`` uint8, decoded, at the size of the original.
        n_bytes: size of the file.
        quality: the codec's setting.
        scale: the factor the picture was shrunk by before coding.
        fits: whether the file is within the budget it was made for.
    """

    image: np.ndarray
    n_bytes: int
    quality: int
    scale: float
    fits: bool


class RateTable:
    """Every file a codec has made of one picture, so that no setting is encoded twice.

    Args:
        image: ``(H, W, 3)`` uint8.
        codec: ``jpeg``, ``jpeg2000``, ``webp`` or ``avif``.
        options: Pillow save options that replace the ones in ``CODECS``.

    Raises:
        ConfigError: there is no such codec.
        ShapeError: the picture is not uint8 ``(H, W, 3)``.
    """

    def __init__(
        self, image: np.ndarray, codec: str, options: Mapping[str, Any] | None = None
    ) -> None:
        if codec not in CODECS:
            raise unknown_name("codec", codec, CODECS)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ShapeError(
                f"codecs: expected a uint8 picture (H, W, 3); got {image.dtype} {image.shape}. "
                "Round it and put channels last."
            )
        self.image = image
        self.codec = codec
        self.options = {**CODECS[codec], **(options or {})}
        self._pictures: dict[float, Image.Image] = {}
        self._files: dict[tuple[float, int], bytes] = {}

    def file(self, quality: int, scale: float = 1.0) -> bytes:
        """Return the file at a quality, of the picture shrunk by ``scale``."""
        key = (scale, quality)
        if key not in self._files:
            buffer = io.BytesIO()
            self._shrunk(scale).save(buffer, **_setting(self.codec, quality), **self.options)
            self._files[key] = buffer.getvalue()
        return self._files[key]

    def decode(self, quality: int, scale: float, budget: int) -> Encoded:
        """Return what the file shows, enlarged to the original size."""
        data = self.file(quality, scale)
        height, width = self.image.shape[:2]
        with Image.open(io.BytesIO(data)) as opened:
            picture = opened.convert("RGB")
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        pixels = np.array(picture)
        return Encoded(pixels, len(data), quality, scale, len(data) <= budget)

    def best_quality(self, budget: int, scale: float) -> int | None:
        """Return the highest quality whose file fits; None if not even the lowest does.

        File sizes grow nearly exponentially with the quality, so the search interpolates their
        logarithm and needs half the encodes of a bisection.
        """
        low, high = QUALITIES[self.codec]
        if len(self.file(low, scale)) > budget:
            return None
        fits, fails = low, high + 1
        for (known, quality), data in self._files.items():
            if known == scale and len(data) <= budget:
                fits = max(fits, quality)
        for (known, quality), data in self._files.items():
            if known == scale and len(data) > budget and quality > fits:
                fails = min(fails, quality)
        while fails - fits > 1:
            quality = self._guess(budget, scale, fits, fails)
            if len(self.file(quality, scale)) <= budget:
                fits = quality
            else:
                fails = quality
        return fits

    def _guess(self, budget: int, scale: float, fits: int, fails: int) -> int:
        """Return the quality to try next, strictly between the two."""
        if (scale, fails) not in self._files:  # nothing too large is known yet: take a stride
            return min(max(2 * fits, fits + 16), fails - 1)
        small, large = len(self.file(fits, scale)), len(self.file(fails, scale))
        share = math.log(budget / small) / max(math.log(large / small), 1e-9)
        step = round(share * (fails - fits))
        # one off the interpolated end, so that a bracket shrinks from both sides
        return min(max(fits + 1, fits + step), fails - 1)

    def best(self, budget: int, scales: Sequence[float] = (1.0,)) -> Encoded:
        """Return the fitting file of highest PSNR over ``scales``, tried in falling order.

        The search stops at the first scale that is worse than the one before it. When nothing
        fits, the smallest file there is comes back, over budget and marked so.
        """
        found: Encoded | None = None
        for scale in self._usable(scales):
            quality = self.best_quality(budget, scale)
            if quality is None:
                continue
            candidate = self.decode(quality, scale, budget)
            if found is not None and self._error(candidate) >= self._error(found):
                break
            found = candidate
        if found is None:
            found = self.decode(QUALITIES[self.codec][0], self._usable(scales)[-1], budget)
        return found

    def _usable(self, scales: Sequence[float]) -> list[float]:
        shorter = min(self.image.shape[:2])
        kept = [scale for scale in scales if scale == 1 or scale * shorter >= SMALLEST_SIDE]
        return sorted(kept, reverse=True)

    def _error(self, encoded: Encoded) -> float:
        difference = encoded.image.astype(np.float64) - self.image
        return float(np.square(difference).mean())

    def _shrunk(self, scale: float) -> Image.Image:
        if scale not in self._pictures:
            height, width = self.image.shape[:2]
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            picture = Image.fromarray(self.image)
            if scale != 1:
                picture = picture.resize(size, Image.Resampling.LANCZOS)
            self._pictures[scale] = picture
        return self._pictures[scale]


def _setting(codec: str, quality: int) -> dict[str, Any]:
    """Return what Pillow takes for a quality; the size of the file grows with it."""
    if codec != "jpeg2000":
        return {"quality": quality}
    return {"quality_mode": "rates", "quality_layers": [LEAST_RATE * 2 ** (-quality / 50.1)]}


def encode_at_bytes(
    image: np.ndarray,
    codec: str,
    budget: int,
    rescale: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Encoded:
    """Return the best picture a codec can make with at most ``budget`` bytes.

    Args:
        image: ``(H, W, 3)`` uint8.
        codec: ``jpeg`` (optimised, progressive), ``jpeg2000``, ``webp`` or ``avif``.
        budget: file size in bytes, header included.
        rescale: also try the factors in ``SCALES`` and keep the one of highest PSNR.
        options: Pillow save options, e.g. ``{"speed": 8}`` for AVIF.

    Returns:
        ``Encoded``; if no file is small enough, the smallest one, with ``fits`` False.

    Raises:
        ConfigError: there is no such codec, or the budget is not positive.
        ShapeError: the picture is not uint8 ``(H, W, 3)``.
    """
    if budget < 1:
        raise ConfigError(
            f"encode_at_bytes: expected a budget of at least 1 byte; got {budget}. "
            "Give the size of the tokenizer's file."
        )
    return RateTable(image, codec, options).best(budget, SCALES if rescale else (1.0,))


class Request(NamedTuple):
    """One picture with the budgets it is to be coded at.

    Attributes:
        image: ``(H, W, 3)`` uint8.
        budgets: in bytes.
        equal: which of them is the tokenizer's own file size.
    """

    image: np.ndarray
    budgets: tuple[int, ...]
    equal: int = 0


def encode_many(
    requests: Sequence[Request],
    codec: str,
    options: Mapping[str, Any] | None = None,
    workers: int | None = None,
) -> list[dict[str, list[Encoded]]]:
    """Code pictures on all cores (Pillow lets go of the interpreter while it encodes).

    Args:
        requests: pictures and their budgets.
        codec: ``jpeg``, ``jpeg2000``, ``webp`` or ``avif``.
        options: Pillow save options.
        workers: threads; default one per core.

    Returns:
        Per picture ``best_scale``, one ``Encoded`` per budget, and ``own_size``, one for the budget
        number ``Request.equal``.
    """

    def one(request: Request) -> dict[str, list[Encoded]]:
        table = RateTable(request.image, codec, options)
        return {
            "own_size": [table.best(request.budgets[request.equal])],
            "best_scale": [table.best(budget, SCALES) for budget in request.budgets],
        }

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(one, requests))
