"""Pictures larger than memory: encoding and decoding tile by tile, with blended overlaps.

Beside the picture, its latents and the result, memory is that of one tile whatever the picture's
size. A tile sees nothing beyond its border. Of each overlap the outer quarters are dropped and the
middle half is blended, so a network that sees at most a quarter of the overlap far gives what it
gives for the whole picture. What a network takes from all of a picture (group normalisation,
attention) it takes from the tile, which is the picture's own up to a tile's worth of statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.backbones.base import TokenEncoder
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.framing import crop
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Codes

Window = tuple[slice, ...]
ALL = slice(None)


@torch.no_grad()
def tiled_encode(tokenizer: Tokenizer, x: Tensor, tile: int = 512, overlap: int = 128) -> Codes:
    """Turn a large picture into integers, tile by tile.

    Args:
        tokenizer: of pictures of any size, with a head that quantizes each position by itself.
        x: ``(B, C, H, W)``, float in the signal's range, or uint8 for 0..255. It may lie on another
            device than the tokenizer.
        tile: side of a tile in pixels, a multiple of the stride.
        overlap: of neighbouring tiles in pixels, a multiple of the stride below ``tile``.

    Returns:
        What ``encode`` returns: codes of the whole picture.

    Raises:
        ConfigError: the tokenizer takes one size, or its tokens depend on their place, or ``tile``
            and ``overlap`` do not fit the stride.
        ShapeError: ``x`` has another rank, channels or range.
    """
    side, shared = _positions(tokenizer, tile, overlap, "tiled_encode")
    shape = tuple(x.shape[2:])
    grid = tokenizer.encoder.grid(shape)

    def latents(window: Window) -> Tensor:
        part = tokenizer.check_signal(x[(ALL, ALL, *_samples(window, tokenizer.stride))])
        z: Tensor = tokenizer.encoder(tokenizer.encoder.frame(part))
        return z

    z = _blend(latents, grid, side, shared, scale=(1, 1), channels_last=True)
    rows = [tokenizer.quantizer.encode(row) for row in torch.split(z, side, dim=1)]
    sizes = tokenizer.quantizer.codebook_sizes
    return Codes(torch.cat(rows, dim=1), shape, sizes, tokenizer.model_id)


@torch.no_grad()
def tiled_decode(
    tokenizer: Tokenizer,
    codes: Codes,
    tile: int = 512,
    overlap: int = 128,
    *,
    raw: bool = False,
    **options: Any,
) -> Tensor:
    """Turn the codes of a large picture back into it, tile by tile.

    Args:
        tokenizer: as for ``tiled_encode``.
        codes: what ``tiled_encode`` or ``encode`` of this tokenizer returned.
        tile: side of a tile in pixels, a multiple of the stride.
        overlap: of neighbouring tiles in pixels, a multiple of the stride below ``tile``.
        raw: do not clamp to the signal's range.
        **options: further arguments of the decoder. Noise ``(B, h, w, channels)`` is drawn once for
            the whole picture, so that tiles agree about it.

    Returns:
        ``(B, C, H, W)``.

    Raises:
        ConfigError: as ``tiled_encode``, or the decoder has no such option.
        ShapeError: the indices do not fill the picture's grid, or are outside their codebooks.
    """
    side, shared = _positions(tokenizer, tile, overlap, "tiled_decode")
    tokenizer.check_options(options)
    codes = tokenizer.adopt(codes)
    indices, grid = codes.indices, tokenizer.encoder.grid(codes.shape)
    if tuple(indices.shape[1:-1]) != grid:
        raise ShapeError(
            f"tiled_decode: expected a grid of {grid} for a picture of {codes.shape}; got "
            f"{tuple(indices.shape[1:-1])}. Codes keep the shape that was encoded."
        )
    noise = _noise(tokenizer, (indices.shape[0], *grid), options)

    def pixels(window: Window) -> Tensor:
        z_q = tokenizer.quantizer.decode(indices[(ALL, *window)].to(_device(tokenizer)))
        seen = {} if noise is None else {"noise": noise[(ALL, *window)]}
        part: Tensor = tokenizer.decoder(z_q.contiguous(), **options, **seen)
        return part

    x_hat = _blend(pixels, grid, side, shared, scale=tokenizer.stride, channels_last=False)
    low, high = tokenizer.signal.value_range
    x_hat = crop(x_hat, codes.shape)
    return x_hat if raw else x_hat.clamp_(low, high)


def _blend(
    compute: Callable[[Window], Tensor],
    grid: tuple[int, ...],
    side: int,
    shared: int,
    *,
    scale: Sequence[int],
    channels_last: bool,
) -> Tensor:
    """Return what ``compute`` gives for the windows of ``grid``, blended into one tensor.

    Args:
        compute: the tile of a window of positions, ``scale`` values per position and axis.
        grid: positions per axis.
        side: positions per tile and axis.
        shared: positions that neighbouring tiles have in common.
        scale: values per position.
        channels_last: whether tiles are ``(B, h, w, D)``; else ``(B, C, H, W)``.
    """
    whole: Tensor | None = None
    for window in _windows(grid, side, shared):
        part = compute(window)
        if channels_last:
            part = part.movedim(-1, 1)
        if whole is None:
            sizes = [n * step for n, step in zip(grid, scale, strict=True)]
            whole = part.new_zeros(*part.shape[:2], *sizes)
        for axis, (piece, n, step) in enumerate(zip(window, grid, scale, strict=True)):
            ramp = _ramp(piece, n, side, shared, step).to(part)
            part = part * ramp.reshape(-1, *[1] * (len(grid) - 1 - axis))
        whole[(ALL, ALL, *_samples(window, scale))] += part
    if whole is None:
        raise ShapeError("tiling: expected a picture of at least one pixel; got none.")
    return whole.movedim(1, -1) if channels_last else whole


def _windows(grid: tuple[int, ...], side: int, shared: int) -> Iterator[Window]:
    """Yield the windows that cover ``grid``; those at the end are shorter."""
    steps = side - shared
    starts = [range(0, max(n - shared, 1), steps) for n in grid]
    for corner in product(*starts):
        yield tuple(slice(a, min(a + side, n)) for a, n in zip(corner, grid, strict=True))


def _ramp(window: slice, n: int, side: int, shared: int, scale: int) -> Tensor:
    """Return the weight of each value of a window along one axis; those of all windows add to 1."""
    length, overlap = (window.stop - window.start) * scale, shared * scale
    weight = torch.ones(length)
    rise = ((torch.arange(overlap) + 0.5 - overlap / 4) / max(overlap / 2, 1)).clamp(0, 1)
    if window.start > 0:
        weight[:overlap] *= rise[:length]
    if window.stop < n:
        weight[length - overlap :] *= 1 - rise
    return weight


def _samples(window: Window, scale: Sequence[int]) -> Window:
    """Return the samples of a window of positions."""
    pairs = zip(window, scale, strict=True)
    return tuple(slice(piece.start * step, piece.stop * step) for piece, step in pairs)


def _noise(tokenizer: Tokenizer, shape: tuple[int, ...], options: dict[str, Any]) -> Tensor | None:
    """Take the noise of a generative decoder out of ``options``, or draw it; None for others."""
    if "noise" not in tokenizer.decode_options:
        return None
    generator = options.pop("generator", None)
    given: Tensor | None = options.pop("noise", None)
    if given is not None:
        return given
    channels = int(tokenizer.decoder.noise_channels)  # type: ignore[arg-type] # an attribute
    drawn = torch.empty(*shape, channels, device=_device(tokenizer))
    return drawn.movedim(-1, 1).normal_(generator=generator).movedim(1, -1)


def _positions(tokenizer: Tokenizer, tile: int, overlap: int, where: str) -> tuple[int, int]:
    """Return tile and overlap in positions."""
    strides = set(tokenizer.stride)
    one_size = tokenizer.encoder.size is not None or isinstance(tokenizer.encoder, TokenEncoder)
    if one_size or tokenizer.quantizer.on_grid or tokenizer.signal.axes != 2:
        raise ConfigError(
            f"{where}: expected a tokenizer of pictures of any size that quantizes each position "
            f"by itself; got {type(tokenizer.encoder).__name__} with "
            f"{type(tokenizer.quantizer).__name__}. Resize the picture and encode it whole."
        )
    step = math.lcm(*strides)
    if tile % step or overlap % step or not 0 <= 2 * overlap <= tile or tile < 1:
        raise ConfigError(
            f"{where}: expected tile and overlap in multiples of the stride {step}, the overlap at "
            f"most half the tile; got {tile} and {overlap}. Choose others."
        )
    return tile // step, overlap // step


def _device(tokenizer: Tokenizer) -> torch.device:
    return tokenizer.decoder.last_layer.device
