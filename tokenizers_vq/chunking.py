"""Audio larger than memory: encoding and decoding chunk by chunk.

Beside the signal, its tokens and the result, memory is that of one chunk whatever the length.
Causal networks go on where they stopped (``stream``) and give what they give for the whole signal.
Others see some of the signal around each chunk and what comes of that is dropped: the tokens are
those of the whole signal where the network sees no further than that; recurrent layers and
attention over everything do, and forget. Networks that cut signals themselves
(``Encoder.segments``, ``Backbone.windows``) need no chunks; what encoders with windows that overlap
keep of a signal are its spectra, less than the signal itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Codes


@torch.no_grad()
def chunked_encode(
    tokenizer: Tokenizer, x: Tensor, chunk: int = 2**19, around: int = 2**15
) -> Codes:
    """Turn long signals into integers, chunk by chunk.

    Args:
        tokenizer: of audio of any length, with a head that quantizes each position by itself.
        x: ``(B, C, T)``, float in the signal's range; may lie on another device.
        chunk: samples of a chunk; rounded up to whole positions.
        around: samples that a network that is not causal sees on either side of a chunk; rounded up
            likewise.

    Returns:
        What ``encode`` returns: codes of the whole signal.

    Raises:
        ConfigError: the tokenizer takes one size, or its tokens depend on their place, or a chunk
            has no samples.
        ShapeError: ``x`` has another rank, channels or range.
    """
    step, shared = _positions(tokenizer, chunk, around, "chunked_encode")
    stride, samples = tokenizer.stride[0], x.shape[-1]
    if tokenizer.encoder.segments is not None or tokenizer.encoder.windows is not None:
        return tokenizer.encode(x)
    parts = []
    if _causal(tokenizer):
        stream = tokenizer.stream()
        for start in range(0, samples, step * stride):
            end = start + step * stride
            parts.append(stream.encode(x[..., start:end], last=end >= samples))
    else:
        for start, end, first, last in _windows(
            tokenizer.encoder.grid((samples,))[0], step, shared
        ):
            z = tokenizer.encode(x[..., first * stride : last * stride]).indices
            parts.append(z[:, start - first : end - first])
    sizes = tokenizer.quantizer.codebook_sizes
    return Codes(torch.cat(parts, dim=1), (samples,), sizes, tokenizer.model_id)


@torch.no_grad()
def chunked_decode(
    tokenizer: Tokenizer,
    codes: Codes,
    chunk: int = 2**19,
    around: int = 2**15,
    *,
    raw: bool = False,
) -> Tensor:
    """Turn the codes of long signals back into them, chunk by chunk.

    Args:
        tokenizer: as for ``chunked_encode``.
        codes: what ``chunked_encode`` or ``encode`` of this tokenizer returned.
        chunk: samples of a chunk; rounded up to whole positions.
        around: samples decoded on either side of a chunk and dropped, where the network is not
            causal.
        raw: do not clamp to the signal's range.

    Returns:
        ``(B, C, T)``.

    Raises:
        ConfigError: as ``chunked_encode``.
        ShapeError: the indices do not fill the signal's grid, or are outside their codebooks.
    """
    step, shared = _positions(tokenizer, chunk, around, "chunked_decode")
    stride, samples = tokenizer.stride[0], codes.shape[0]
    if tokenizer.encoder.segments is not None or codes.lengths is not None:
        return tokenizer.decode(codes, raw=raw)
    parts, count = [], codes.indices.shape[1]
    if _causal(tokenizer) and not raw:
        stream, indices = tokenizer.stream(), tokenizer.adopt(codes).indices
        for start in range(0, count, step):
            ends = start + step >= count
            tokens = indices[:, start : start + step]
            parts.append(stream.decode(tokens, last=ends, num_samples=samples))
        return torch.cat(parts, dim=-1)
    for start, end, first, last in _seen(tokenizer, count, step, shared):
        shape = (min(last * stride, samples) - first * stride,)
        piece = replace(codes, indices=codes.indices[:, first:last], shape=shape)
        x_hat = tokenizer.decode(piece, raw=raw)
        parts.append(x_hat[..., (start - first) * stride : (end - first) * stride])
    return torch.cat(parts, dim=-1)


def _windows(count: int, step: int, shared: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the positions that a chunk gives, from and to, and those that the network sees."""
    for start in range(0, count, step):
        end = min(start + step, count)
        yield start, end, max(0, start - shared), min(end + shared, count)


def _seen(
    tokenizer: Tokenizer, count: int, step: int, shared: int
) -> Iterator[tuple[int, int, int, int]]:
    """Yield what ``_windows`` does; whole windows of a decoder that has some."""
    windows, stride = tokenizer.decoder.windows, tokenizer.stride[0]
    if windows is None:
        yield from _windows(count, step, shared)
        return
    own, length = windows.step // stride, windows.length // stride
    whole = -(-step // own) * own
    for start, end, _, _ in _windows(count, whole, 0):
        yield start, end, start, min(end - own + length, count)


def _causal(tokenizer: Tokenizer) -> bool:
    try:
        tokenizer.stream()
    except ConfigError:
        return False
    return True


def _positions(tokenizer: Tokenizer, chunk: int, around: int, where: str) -> tuple[int, int]:
    """Return a chunk and what is around it, in positions."""
    whole = tokenizer.encoder.size is not None or tokenizer.quantizer.on_grid
    if whole or tokenizer.signal.kind != "audio":
        raise ConfigError(
            f"{where}: expected a tokenizer of audio of any length that quantizes each position by "
            f"itself; got {type(tokenizer.encoder).__name__} with "
            f"{type(tokenizer.quantizer).__name__}. Encode signals whole."
        )
    if chunk < 1 or around < 0:
        raise ConfigError(
            f"{where}: expected chunks of at least 1 sample and 0 or more around them; got {chunk} "
            f"and {around}. Choose others."
        )
    return -(-chunk // tokenizer.stride[0]), -(-around // tokenizer.stride[0])
