"""How many tokens: encoding to a number of them or to an error, and decoding of prefixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tokenizers_vq.backbones.base import TokenDecoder, TokenEncoder
from tokenizers_vq.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from tokenizers_vq.tokenizer import Tokenizer


def encode(
    tokenizer: Tokenizer, x: Tensor, num_tokens: int | None, target_error: float | None
) -> Tensor:
    """Return indices ``(B, n, K)`` of whole signals ``x (B, C, *S)``; -1 at missing tokens.

    Encoders that choose their tokens take both wishes: an error to aim at, and at most so many
    tokens. Others take one of them.

    Raises:
        ConfigError: the encoder gives one grid, both wishes are given to one that does not choose,
            or the error is not above 0.
        ShapeError: there is no such number of tokens.
    """
    encoder = tokenizer.encoder
    if not isinstance(encoder, TokenEncoder):
        if num_tokens is None and target_error is None:
            return tokenizer.quantizer.encode(encoder(x))
        raise ConfigError(
            f"encode: expected an encoder to a sequence of tokens; got {type(encoder).__name__}, "
            "whose grid follows the signal. Leave num_tokens and target_error out."
        )
    if target_error is not None and not target_error > 0:
        raise ConfigError(
            f"encode: expected a target_error above 0; got {target_error}. It is the mean absolute "
            "error in units of the signal's range."
        )
    if encoder.targets_error:
        return tokenizer.quantizer.encode(*encoder.allocate(x, target_error, num_tokens))
    if target_error is None:
        return tokenizer.quantizer.encode(encoder(x, num_tokens=num_tokens))
    if num_tokens is not None:
        raise ConfigError(
            "encode: expected num_tokens or target_error; got both. Give one of them."
        )
    return _search(tokenizer, encoder, x, target_error)


def prefix(tokenizer: Tokenizer, indices: Tensor, num_tokens: int) -> Tensor:
    """Return the first ``num_tokens`` of ``indices (B, n, K)``.

    Raises:
        ShapeError: the decoder takes no such number, or there are fewer.
    """
    decoder = tokenizer.decoder
    if not isinstance(decoder, TokenDecoder):
        raise ShapeError(
            f"decode: expected a decoder of a sequence of tokens; got {type(decoder).__name__}. "
            "Leave num_tokens out."
        )
    if not 1 <= num_tokens <= indices.shape[1]:
        raise ShapeError(
            f"decode: expected num_tokens of 1..{indices.shape[1]}, as many as there are; got "
            f"{num_tokens}. Encode with more tokens."
        )
    return indices[:, :num_tokens]


def _search(tokenizer: Tokenizer, encoder: TokenEncoder, x: Tensor, target_error: float) -> Tensor:
    """Try every number of tokens, the smallest first, until each item is near enough."""
    low, high = tokenizer.signal.value_range
    indices = x.new_full(
        (x.shape[0], encoder.num_tokens, tokenizer.quantizer.num_codebooks), -1, dtype=torch.int64
    )
    left = torch.arange(x.shape[0], device=x.device)
    for count in encoder.counts:
        if not len(left):
            break
        found = tokenizer.quantizer.encode(encoder(x[left], num_tokens=count))
        decoded = tokenizer.decoder(tokenizer.quantizer.decode(found).contiguous())
        error = (decoded.clamp(low, high) - x[left]).abs().flatten(1).mean(1) / (high - low)
        done = (error <= target_error) | (count == encoder.num_tokens)
        indices[left[done], :count] = found[done]
        left = left[~done]
    most = int((indices >= 0).any(-1).sum(1).max()) if len(indices) else 0
    return indices[:, :most]
