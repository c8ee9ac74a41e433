"""Encoding and decoding of signals that arrive in pieces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokenizers_vq import clips
from tokenizers_vq.errors import ConfigError, ShapeError, check_indices, check_shape
from tokenizers_vq.functional.framing import crop

if TYPE_CHECKING:
    from tokenizers_vq.tokenizer import Tokenizer


@dataclass(frozen=True)
class StreamState:
    """Where a stream is: a value that can be kept, saved with ``torch.save`` and gone back to.

    Attributes:
        encoder: what the encoder remembers; nested tuples of tensors and flags.
        decoder: what the decoder remembers.
        samples: how many were encoded, frames of a video.
        decoded: how many were decoded.
        sides: of the frames of a video, rows and columns.
        ended: whether the last piece was encoded, and decoded.
    """

    encoder: Any = None
    decoder: Any = None
    samples: int = 0
    decoded: int = 0
    sides: tuple[int, ...] = ()
    ended: tuple[bool, bool] = (False, False)


class Stream:
    """One signal, or a batch of signals of one length, in pieces of any size.

    The tokens of all pieces, one after the other, are those of the whole signal, and so are the
    samples decoded from them. A piece may give no token: a token comes when its last sample, and
    what the encoder looks ahead, has arrived.

    Args:
        tokenizer: with a causal encoder and decoder, and a quantizer that takes each position by
            itself.
        num_codebooks: how many of a residual head's codebooks ``encode`` gives; None for all.

    Attributes:
        state: where the stream is; may be set to go back.

    Raises:
        ConfigError: the tokenizer cannot work in pieces.
        ShapeError: no such number of codebooks.

    Example:
        >>> stream = tokenizer.stream()                          # doctest: +SKIP
        >>> tokens = [stream.encode(piece) for piece in pieces]  # doctest: +SKIP
        >>> tokens.append(stream.encode(end, last=True))         # doctest: +SKIP
    """

    def __init__(self, tokenizer: Tokenizer, num_codebooks: int | None = None) -> None:
        parts = (tokenizer.encoder, tokenizer.decoder)
        whole = [type(part).__name__ for part in parts if not hasattr(part, "step")]
        if whole or tokenizer.quantizer.on_grid:
            what = ", ".join(whole) or type(tokenizer.quantizer).__name__
            raise ConfigError(
                f"stream: expected a tokenizer that works in pieces; got one with {what}. "
                "Encode whole signals, or choose a causal backbone."
            )
        if num_codebooks is not None:
            clips.check_prefix(tokenizer, num_codebooks)
        self.tokenizer, self.num_codebooks = tokenizer, num_codebooks
        self._encoder: Any = tokenizer.encoder
        self._decoder: Any = tokenizer.decoder
        self.state = StreamState()
        self._try()

    @torch.no_grad()
    def encode(self, x: Tensor, *, last: bool = False) -> Tensor:
        """Return the tokens ``(B, n, K)`` or ``(B, n, h, w, K)`` that the next samples decide.

        Args:
            x: ``(B, C, m)`` or ``(B, C, m, H, W)`` float in the signal's range, m of 0 and more.
            last: nothing follows; the last position is completed.

        Raises:
            ShapeError: another rank, number of channels, range or size of frames, or the stream
                has ended.
        """
        if self.state.ended[0]:
            raise ShapeError(
                "stream: expected no samples after the last piece; got "
                f"{tuple(x.shape)}. Begin another stream."
            )
        x = self.tokenizer.check_signal(x, empty=True)
        state, tokenizer = self.state, self.tokenizer
        sides = tuple(x.shape[3:])
        if state.samples and sides != state.sides:
            raise ShapeError(
                f"stream: expected frames of {state.sides} like those before; got {sides}. "
                "Begin another stream."
            )
        if last and not state.samples + x.shape[2]:
            raise ShapeError(
                "stream: expected at least 1 sample; got none before the end. "
                "Leave empty signals out."
            )
        z, inner = self._encoder.step(x, state.encoder, last)
        indices: Tensor = tokenizer.quantizer.encode(z)[..., : self.num_codebooks]
        self.state = replace(
            state, encoder=inner, samples=state.samples + x.shape[2], sides=sides,
            ended=(last, state.ended[1]),
        )  # fmt: skip
        return indices

    @torch.no_grad()
    def decode(
        self, indices: Tensor, *, last: bool = False, num_samples: int | None = None
    ) -> Tensor:
        """Return the samples ``(B, C, m)`` or ``(B, C, m, H, W)`` that the next tokens decide.

        Args:
            indices: ``(B, n, K)`` or ``(B, n, h, w, K)`` int64, n of 0 and more; of a residual head
                the first codebooks are enough.
            last: nothing follows.
            num_samples: length of the whole signal, known at the end; None for what this stream
                encoded, or for whole positions if it encoded nothing.

        Raises:
            ShapeError: indices of another shape, dtype or range, or the stream has ended.
        """
        if self.state.ended[1]:
            raise ShapeError(
                "stream: expected no tokens after the last ones; got "
                f"{tuple(indices.shape)}. Begin another stream."
            )
        tokenizer, state = self.tokenizer, self.state
        grid = " ".join(["N", "h", "w"][: tokenizer.signal.axes])
        if indices.ndim == tokenizer.signal.axes + 2 and indices.shape[-1]:
            indices = tokenizer.quantizer.complete(indices)
        check_shape(indices, f"B {grid} {tokenizer.quantizer.num_codebooks}", "stream", "Tokens.")
        check_indices(indices, tokenizer.quantizer.codebook_sizes, "stream")
        z_q = tokenizer.quantizer.decode(indices)
        x_hat: Tensor
        x_hat, inner = self._decoder.step(z_q, state.decoder, last)
        total = num_samples or (state.samples if state.ended[0] else None)
        if last and total is not None:
            x_hat = x_hat[:, :, : max(0, total - state.decoded)]
        if state.sides:
            x_hat = crop(x_hat, (x_hat.shape[2], *state.sides))
        self.state = replace(
            state, decoder=inner, decoded=state.decoded + x_hat.shape[2],
            ended=(state.ended[0], last),
        )  # fmt: skip
        return x_hat.clamp(*tokenizer.signal.value_range)

    @property
    def latency(self) -> int:
        """Samples that must arrive before the first sample comes out, in whole positions.

        It is the delay of a stream's beginning, which networks that reflect the signal at its
        start wait for; what follows comes one position after its samples.
        """
        trial = Stream(self.tokenizer)
        weight = next(self.tokenizer.decoder.parameters())
        position = self.tokenizer.encoder.samples((1,) * self.tokenizer.signal.axes)
        x = weight.new_zeros(1, self.tokenizer.signal.channels, *position)
        while not trial.decode(trial.encode(x)).shape[2]:
            pass
        return trial.state.samples

    @torch.no_grad()
    def _try(self) -> None:
        """Run both networks on nothing, so that one that sees the future is refused at once."""
        tokenizer = self.tokenizer
        weight = next(tokenizer.decoder.parameters())
        sides = tokenizer.stride[1:]
        self._encoder.step(weight.new_zeros(1, tokenizer.signal.channels, 0, *sides), None, False)
        ones = (1,) * len(sides)
        self._decoder.step(weight.new_zeros(1, 0, *ones, tokenizer.decoder.dim), None, False)
