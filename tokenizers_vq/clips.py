"""Encoding and decoding of signals in segments, of batches of several lengths, of some codebooks.

A network that takes short signals, or of one loudness, says so by ``Encoder.segments``: its
tokens are those of the segments, one after the other, and the loudness of each travels with them.
Items of a batch that are shorter than it are encoded without what is behind them, so that
padding never changes a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokenizers_vq import allocation
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.segments import overlap_add
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.types import Codes

if TYPE_CHECKING:
    from tokenizers_vq.tokenizer import Tokenizer


def encode(tokenizer: Tokenizer, x: Tensor, **wishes: Any) -> tuple[Tensor, Tensor | None]:
    """Return the indices ``(B, *grid, K)`` of signals and the scales ``(B, segments)``, if any.

    Args:
        tokenizer: whose encoder and quantizer run.
        x: ``(B, C, *S)`` in the signal's range.
        **wishes: of ``allocation.encode``, and ``num_codebooks``.

    Raises:
        ConfigError, ShapeError: as ``Tokenizer.encode``.
    """
    segments = tokenizer.encoder.segments
    if segments is None:
        return _indices(tokenizer, tokenizer.encoder.frame(x), **wishes), None
    columns, scales = [], []
    for start, end in segments.spans(x.shape[-1]):
        part = x[..., start:end]
        scale = segments.scale(part)
        if scale is not None:
            part = part / scale[:, None, None]
            scales.append(scale)
        columns.append(_indices(tokenizer, tokenizer.encoder.frame(part), **wishes))
    return torch.cat(columns, dim=1), torch.stack(scales, dim=1) if scales else None


def decode(
    tokenizer: Tokenizer,
    indices: Tensor,
    grid: tuple[int, ...],
    shape: tuple[int, ...],
    scale: Tensor | None,
    options: Mapping[str, Any],
) -> Tensor:
    """Return signals ``(B, C, *shape)``, not clamped.

    Args:
        tokenizer: whose quantizer and decoder run.
        indices: ``(B, *grid, K)`` of whole signals.
        grid: of the latents.
        shape: samples per axis.
        scale: ``(B, segments)`` loudness; None for 1.
        options: of the decoder.
    """
    encoder = tokenizer.encoder
    if encoder.segments is None:
        return tokenizer.decoder.cropped(tokenizer.decoded(indices, grid, options), shape)
    parts, at = [], 0
    spans = encoder.segments.spans(shape[0])
    for i, (start, end) in enumerate(spans):
        count = -(-(end - start) // tokenizer.stride[0])
        tokens = tokenizer.quantizer.index_grid((count,))[0]
        part = tokenizer.decoded(indices[:, at : at + tokens], (count,), options)
        parts.append(part if scale is None else part * scale[:, i, None, None].to(part))
        at += tokens
    return overlap_add(parts, spans)


def index_grid(
    tokenizer: Tokenizer, grid: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the grid of the indices of a signal: those of its segments follow one another.

    Args:
        tokenizer: whose head has as many tokens as latents, or other numbers.
        grid: of the latents.
        shape: samples per axis.
    """
    head, segments = tokenizer.quantizer, tokenizer.encoder.segments
    if segments is None:
        return head.index_grid(grid)
    lengths = [end - start for start, end in segments.spans(shape[0])]
    return (sum(head.index_grid((-(-n // tokenizer.stride[0]),))[0] for n in lengths),)


def encode_items(tokenizer: Tokenizer, x: Tensor, lengths: Sequence[int], **wishes: Any) -> Codes:
    """Return the codes of items ``x[b, ..., :lengths[b]]``, -1 behind each one's end.

    Raises:
        ConfigError: the signal has more than one axis, or the tokens have no place in it.
        ShapeError: there is not one length of 1..T per item.
    """
    lengths = tuple(int(n) for n in lengths)
    _check_lengths(tokenizer, x, lengths)
    groups = list(_groups(lengths))
    found = [tokenizer.encode(x[rows][..., :samples], **wishes) for rows, samples in groups]
    longest = found[0]
    indices = longest.indices.new_full((len(x), *longest.indices.shape[1:]), -1)
    scale = None if longest.scale is None else longest.scale.new_ones(len(x), len(longest.scale[0]))
    for codes, (rows, _) in zip(found, groups, strict=True):
        indices[rows, : codes.indices.shape[1]] = codes.indices
        if scale is not None and codes.scale is not None:
            scale[rows, : codes.scale.shape[1]] = codes.scale
    shape = (x.shape[-1],)
    return replace(longest, indices=indices, shape=shape, scale=scale, lengths=lengths)


def decode_items(tokenizer: Tokenizer, codes: Codes, **options: Any) -> Tensor:
    """Return the items ``(B, C, T)`` of codes of several lengths, zeros behind each one's end.

    Raises:
        ConfigError, ShapeError: as ``Tokenizer.decode``.
    """
    lengths = codes.lengths or ()
    out = None
    for rows, samples in _groups(lengths):
        grid = index_grid(tokenizer, tokenizer.encoder.grid((samples,)), (samples,))
        part = replace(
            codes,
            indices=codes.indices[rows, : grid[0]],
            shape=(samples,),
            scale=None if codes.scale is None else codes.scale[rows],
            lengths=None,
        )
        x_hat = tokenizer.decode(part, **options)
        if out is None:
            out = x_hat.new_zeros(len(lengths), x_hat.shape[1], codes.shape[0])
        out[rows, :, :samples] = x_hat
    if out is None:
        raise ShapeError("decode: expected at least one item; got codes of none.")
    return out


def scaled(tokenizer: Tokenizer, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return signals ``(B, C, T)`` of the loudness that the network takes, and their scales."""
    segments = tokenizer.encoder.segments
    scale = None if segments is None else segments.scale(x)
    return (x, None) if scale is None else (x / scale[:, None, None], scale[:, None, None])


def check_prefix(tokenizer: Tokenizer, count: int) -> None:
    """Raise ``ShapeError`` unless the first ``count`` codebooks of a tokenizer decode alone."""
    head, total = tokenizer.quantizer, tokenizer.quantizer.num_codebooks
    if 1 <= count <= total and not head.on_grid:
        probe = torch.zeros(1, count, dtype=torch.int64)
        if head.complete(probe).shape[-1] == total:
            return
    raise ShapeError(
        f"encode: expected num_codebooks of 1..{total} and a residual quantizer; got {count} for "
        f"{type(head).__name__}."
    )


def _indices(
    tokenizer: Tokenizer,
    framed: Tensor,
    num_tokens: int | None = None,
    target_error: float | None = None,
    num_codebooks: int | None = None,
) -> Tensor:
    head, encoder = tokenizer.quantizer, tokenizer.encoder
    if num_codebooks is not None:
        check_prefix(tokenizer, num_codebooks)
    wishes = num_tokens is not None or target_error is not None
    leading = num_codebooks is not None and isinstance(head, Residual)
    if wishes or head.on_grid or (encoder.windows is None and not leading):
        indices = allocation.encode(tokenizer, framed, num_tokens, target_error)
        return indices if num_codebooks is None else indices[..., :num_codebooks]
    # window by window, so that no more latents are held than those of one
    parts = [_quantized(head, z, num_codebooks) for z in encoder.pieces(framed)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _quantized(head: Quantizer, z: Tensor, num_codebooks: int | None) -> Tensor:
    if num_codebooks is not None and isinstance(head, Residual):
        return head.encode_leading(z, num_codebooks)
    indices = head.encode(z)
    return indices if num_codebooks is None else indices[..., :num_codebooks]


def _check_lengths(tokenizer: Tokenizer, x: Tensor, lengths: tuple[int, ...]) -> None:
    axes = (tokenizer.signal.axes, tokenizer.encoder.latent_axes)
    if axes != (1, 1) or tokenizer.signal.kind == "points":
        raise ConfigError(
            f"encode: expected a signal with one axis where lengths are given; got "
            f"{tokenizer.signal.kind!r}. Leave lengths out."
        )
    if x.ndim != 3 or len(lengths) != len(x) or not all(1 <= n <= x.shape[-1] for n in lengths):
        raise ShapeError(
            f"encode: expected one length from 1 to T per item; got {lengths} for a signal of "
            f"{tuple(x.shape)}. Count the samples of each item."
        )


def _groups(lengths: Sequence[int]) -> Iterator[tuple[list[int], int]]:
    """Yield the items of each length, the longest first."""
    for samples in sorted(set(lengths), reverse=True):
        yield [row for row, n in enumerate(lengths) if n == samples], samples
