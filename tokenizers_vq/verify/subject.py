"""A tokenizer under examination: its verbs, its claims, and signals to try it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.data.synthetic_audio import SyntheticAudio
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.foreign import Foreign
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Codes, SignalSpec

ITEMS = 4  # signals per batch
POSITIONS = {1: 24, 2: 6, 3: 3}  # tokens per axis of a probe, by the number of sample axes
LEAST = {1: 1, 2: 64, 3: 16}  # samples per axis of a probe, at least


@dataclass(frozen=True)
class Subject:
    """What the properties ask of a tokenizer.

    Attributes:
        tokenizer: with ``encode(x) -> Codes`` and ``decode(codes) -> signal``.
        module: where its state lives.
        signal: what the numbers of its signals mean.
        stride: samples per position, per axis.
        size: samples per axis, if it takes one size only.
        causal: whether it claims that a token depends on nothing behind it.
        seed: of the signals it is tried with.
    """

    tokenizer: Any
    module: nn.Module
    signal: SignalSpec
    stride: tuple[int, ...]
    size: tuple[int, ...] | None
    causal: bool
    seed: int = 0

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Samples per axis of the probes, whole positions."""
        if self.size is not None:
            return self.size
        axes = self.signal.axes
        return tuple(max(POSITIONS[axes], -(-LEAST[axes] // step)) * step for step in self.stride)

    @cached_property
    def x(self) -> Tensor:
        """The probes ``(4, C, *shape)``."""
        return self.probe(self.shape)

    @cached_property
    def codes(self) -> Codes:
        """The codes of the probes."""
        return self.encode(self.x)

    def probe(self, shape: Sequence[int], items: int = ITEMS) -> Tensor:
        """Return signals ``(items, C, *shape)`` in the middle of the range, the same every time."""
        spec = self.signal
        if spec.kind == "image" and spec.channels == 3:
            pictures = SyntheticImages(items, max(shape), self.seed)
            x = torch.stack([pictures[k] for k in range(items)])
        elif spec.kind == "audio" and spec.channels <= 2:
            rate = spec.sample_rate or 16000
            sounds = SyntheticAudio(items * spec.channels, shape[0] / rate + 0.01, rate, self.seed)
            x = torch.stack([sounds[k][0] for k in range(items * spec.channels)])
            x = x.reshape(items, spec.channels, -1)
        else:
            generator = torch.Generator().manual_seed(self.seed)
            x = torch.randn(items, spec.channels, *shape, generator=generator).tanh()
        for axis, length in enumerate(shape, start=2):
            x = x.narrow(axis, 0, length)
        low, high = spec.value_range
        return (low + (x + 1) * (high - low) / 2).contiguous()

    def encode(self, x: Tensor) -> Codes:
        """Return the codes of signals."""
        codes: Codes = self.tokenizer.encode(x)
        return codes

    def decode(self, codes: Codes) -> Tensor:
        """Return the signals of codes."""
        x_hat: Tensor = self.tokenizer.decode(codes)
        return x_hat

    def reconstruct(self, x: Tensor) -> Tensor | None:
        """Return what forward makes of ``x``; None where there is no forward."""
        with torch.no_grad():
            if isinstance(self.tokenizer, Tokenizer):
                low, high = self.signal.value_range
                x_hat: Tensor = self.tokenizer(x).x_hat
                return x_hat.clamp(low, high)
            forward: Tensor | None = self.tokenizer.reconstruct(x)
            return forward

    def padded(self, x: Tensor, lengths: Sequence[int]) -> Codes:
        """Return the codes of a batch whose items end at ``lengths``, zeros behind."""
        if isinstance(self.tokenizer, Tokenizer):
            return self.tokenizer.encode(x, lengths=lengths)
        codes: Codes = self.tokenizer.padded(x, lengths)
        return codes

    def state(self) -> dict[str, Tensor]:
        """Return a copy of every parameter and buffer, also of those that are not saved."""
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {name: value.detach().clone() for name, value in named}

    @property
    def range(self) -> float:
        """Width of the range of the samples."""
        low, high = self.signal.value_range
        return high - low


def subject_of(tokenizer: Any, seed: int = 0) -> Subject:
    """Return the subject around one of our tokenizers or a ``Foreign`` one.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(tokenizer, Tokenizer):
        size, signal = tokenizer.encoder.size, tokenizer.signal
        causal = _streams(tokenizer)
        return Subject(tokenizer, tokenizer, signal, tokenizer.stride, size, causal, seed)
    if isinstance(tokenizer, Foreign):
        one = tokenizer
        return Subject(one, one.module, one.signal, one.stride, one.size, one.causal, seed)
    raise ConfigError(
        f"verify: expected a tokenizer of this library, or a Foreign; got "
        f"{type(tokenizer).__name__}. Write the ten lines of docs/receipts.md."
    )


def _streams(tokenizer: Tokenizer) -> bool:
    """Whether it works in pieces, which is our claim of causality."""
    try:
        tokenizer.stream()
    except ConfigError:
        return False
    return True
