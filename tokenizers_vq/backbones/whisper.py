"""Encoders of Whisper's shape, as speech tokenizers cut them out of recognisers.

Reference:
    Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022,
    https://arxiv.org/abs/2212.04356, section 2.2; Du et al., CosyVoice, 2024,
    https://arxiv.org/abs/2407.05407, section 2.1 (S3 tokenizer); Du et al., CosyVoice 2, 2024,
    https://arxiv.org/abs/2412.10117, section 2.2; Zeng et al., Scaling Speech-Text Pre-training
    with Synthetic Interleaved Data, 2024, https://arxiv.org/abs/2411.17607, section 2.1 (GLM-4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Encoder
from tokenizers_vq.backbones.whisper_layers import SpeechStack
from tokenizers_vq.errors import ConfigError, unknown_option
from tokenizers_vq.functional.mel import log_mel, mel_filters
from tokenizers_vq.functional.segments import Windows
from tokenizers_vq.types import SignalSpec

HOP, N_FFT = 160, 400  # samples of 16 kHz between frames, and of a frame
SIXTEEN = 16000
POOLS = ("mean", "max")


@dataclass(frozen=True)
class Conventions:
    """What the published encoders do differently.

    Attributes:
        strides: of the two convolutions.
        causal: whether these look back only.
        positions: rows of the table of sinusoids, None to rotate queries and keys.
        memory: positions that a convolution of the values sees, 0 for none.
        pool: positions that become one.
        pool_kind: by their ``mean`` or their ``max``.
        pool_after: layers in front of that; None for all.
        block: positions that see each other, and all before them; None if all see all.
        norm: whether there is one behind the layers.
        eps: what the norm in front of attention adds to the variance.
        unit: divide latents by their length.
        whole: complete a signal to whole positions with zeros; otherwise what does not fill a frame
            of the spectrum is left out, and a signal can have a position less.
    """

    strides: Sequence[int] = (1, 2)
    causal: bool = False
    positions: int | None = 1500
    memory: int = 0
    pool: int = 1
    pool_kind: str = "mean"
    pool_after: int | None = None
    block: int | None = None
    norm: bool = True
    eps: float = 1e-5
    unit: bool = False
    whole: bool = True


class WhisperEncoder(Encoder):
    """Spectra in mel bands, two convolutions, and a transformer, for 16 kHz.

    Longer signals are seen in ``windows``. Those that overlap share the spectra of the whole
    signal, and so the loudest frame that these are relative to; others are independent.

    Args:
        dim: latent width D; a linear map leads there where it is not ``width``.
        signal: what the samples mean; one channel of 16 kHz.
        width: width of the transformer.
        heads: attention heads.
        hidden: width inside its MLPs; None for ``4 * width``.
        layers: how many.
        mels: bands of the spectra.
        windows: fields of ``Windows``, in samples; None for one after the other of as many
            positions as there are, or for all at once where queries and keys are rotated.
        conventions: fields of ``Conventions`` that differ from the defaults.

    Shapes:
        x (B, 1, T) -> z (B, T', D)

    Raises:
        ConfigError: an option does not exist or has no such value.

    Example:
        >>> signal = SignalSpec("audio", 1, sample_rate=16000)
        >>> encoder = WhisperEncoder(8, signal, width=16, heads=2, layers=1, mels=20)
        >>> encoder(torch.zeros(1, 1, 1000)).shape
        torch.Size([1, 4, 8])
    """

    any_length = True
    filters: Tensor

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 1280,
        heads: int = 20,
        hidden: int | None = None,
        layers: int = 6,
        mels: int = 128,
        windows: Mapping[str, int] | None = None,
        conventions: Mapping[str, Any] | None = None,
    ) -> None:
        self.ways = ways = conventions_of(conventions, layers)
        first, second = ways.strides
        super().__init__(dim, (HOP * first * second * ways.pool,), signal)
        check_speech(signal, "whisper")
        self.windows = self._windows(windows)
        pad = 0 if ways.causal else 1
        self.conv1 = nn.Conv1d(mels, width, 3, first, pad)
        self.conv2 = nn.Conv1d(width, width, 3, second, pad)
        self.stack = SpeechStack(
            width,
            heads,
            4 * width if hidden is None else hidden,
            layers,
            positions=ways.positions,
            memory=ways.memory,
            norm=ways.norm,
            eps=ways.eps,
        )
        self.out = nn.Identity() if dim == width else nn.Linear(width, dim)
        filters = mel_filters(N_FFT // 2 + 1, mels, SIXTEEN, scale="slaney", norm="slaney")
        self.register_buffer("filters", filters, persistent=False)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the number of positions ``(T',)`` of a signal of ``shape`` samples."""
        super().grid(shape)
        return (sum(last - first for first, last in self._taken(shape[0])),)

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, T', D)`` of signals ``(B, 1, T)``."""
        parts = list(self.pieces(x))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def pieces(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the latents ``(B, n, D)`` of window after window of ``x (B, 1, T)``.

        Raises:
            ShapeError: another rank, more channels, or no sample.
        """
        self.check_signal(x)
        wave, samples = x[:, 0], x.shape[-1]
        windows = self._spans(samples)
        shared = self._spectra(wave) if self._overlap() else None
        for (start, end), (first, last) in zip(windows, self._taken(samples), strict=True):
            if shared is None:
                spectra = self._spectra(wave[:, start:end])
            else:
                spectra = shared[..., start // HOP : end // HOP]
            yield self.out(self._rows(spectra, min(end, samples) - start))[:, first:last]

    def hidden(self, x: Tensor) -> Tensor:
        """Return the rows ``(B, T', width)`` in front of the last map, of one window."""
        self.check_signal(x)
        return self._rows(self._spectra(x[:, 0]), x.shape[-1])

    def _spectra(self, wave: Tensor) -> Tensor:
        """Return spectra ``(B, mels, frames)`` of ``wave (B, n)``."""
        frames = max(1, wave.shape[-1] // HOP)
        if self.ways.whole:
            wave = F.pad(wave, (0, -wave.shape[-1] % self.stride[0]))
            frames = wave.shape[-1] // HOP
        return log_mel(wave, self.filters, HOP, frames)

    def _rows(self, spectra: Tensor, samples: int) -> Tensor:
        """Return rows ``(B, T', width)`` of spectra of a window of so many samples."""
        ways, stack = self.ways, self.stack
        ahead = (2, 0) if ways.causal else (0, 0)
        h = F.gelu(self.conv1(F.pad(spectra.to(self.conv1.weight.dtype), ahead)))
        h = F.gelu(self.conv2(F.pad(h, ahead))).mT
        after = len(stack.layers) if ways.pool_after is None else ways.pool_after
        fill = self.stride[0] // ways.pool  # samples per position in front of the pooling
        h = stack.run(stack.placed(h), 0, after, self._mask(h, samples, fill, 1))
        if ways.pool > 1:
            pooled = F.avg_pool1d if ways.pool_kind == "mean" else F.max_pool1d
            h = pooled(h.mT, ways.pool).mT
        mask = self._mask(h, samples, self.stride[0], ways.pool)
        out: Tensor = stack.norm(stack.run(h, after, len(stack.layers), mask))
        return F.normalize(out.float(), dim=-1).to(out.dtype) if ways.unit else out

    def _mask(self, h: Tensor, samples: int, fill: int, pooled: int) -> Tensor | None:
        """Return which of the rows ``h (B, n, W)`` may see which, ``(n, n)``; None for all."""
        count, block = h.shape[1], self.ways.block
        place = torch.arange(count, device=h.device)
        there = place < -(-samples // fill)
        if block is not None:
            number = place // (block // pooled)
            return there & (number <= number[:, None])
        return there.expand(count, count) if self.ways.whole and self.ways.pool > 1 else None

    def _overlap(self) -> bool:
        return self.windows is not None and self.windows.length != self.windows.step

    def _spans(self, samples: int) -> list[tuple[int, int]]:
        """Return where windows begin and end."""
        if not self.ways.whole:
            samples = max(HOP, samples // HOP * HOP)
        if self.windows is None:
            return [(0, samples)]
        return [(span.start, span.end) for span in self.windows.spans(samples)]

    def _taken(self, samples: int) -> list[tuple[int, int]]:
        """Return which positions of each window are taken, from and to."""
        spans, windows = self._spans(samples), self.windows
        before = 0 if windows is None else windows.before // self.stride[0]
        taken = [(before if i else 0, self._positions(b - a)) for i, (a, b) in enumerate(spans)]
        if windows is None:
            return taken
        ends = [before + windows.step // self.stride[0]] * (len(spans) - 1) + [taken[-1][1]]
        return [(first, end) for (first, _), end in zip(taken, ends, strict=True)]

    def _positions(self, samples: int) -> int:
        return -(-samples // self.stride[0])

    def _windows(self, given: Mapping[str, int] | None) -> Windows | None:
        """Return the windows, checked."""
        stride, positions = self.stride[0], self.ways.positions
        if given is None:
            size = 0 if positions is None else positions // self.ways.pool * stride
            return Windows(size, size) if size else None
        windows = Windows(**given)
        if any(size % stride for size in (windows.length, windows.step, windows.before)):
            raise ConfigError(
                f"whisper: expected windows of whole positions, {stride} samples each; got "
                f"{windows}. Correct the backbone config."
            )
        if positions is not None and windows.length * self.ways.pool > positions * stride:
            raise ConfigError(
                f"whisper: expected windows of at most {positions} positions in front of the "
                f"pooling; got {windows}. Correct the backbone config."
            )
        return windows


def check_speech(signal: SignalSpec, where: str) -> None:
    """Raise ``ConfigError`` unless a signal is one channel of 16 kHz."""
    if signal.channels != 1 or signal.sample_rate != SIXTEEN:
        raise ConfigError(
            f"{where}: expected a signal of 1 channel and {SIXTEEN} Hz; got {signal.channels} and "
            f"{signal.sample_rate}. Resample it."
        )


def conventions_of(given: Mapping[str, Any] | None, layers: int) -> Conventions:
    """Return the conventions with some fields replaced.

    Raises:
        ConfigError: a field does not exist, or its value cannot be.
    """
    fields = dict(given or {})
    for field in fields:
        if field not in (hints := get_type_hints(Conventions)):
            raise unknown_option("whisper", "conventions", field, hints)
    ways = replace(Conventions(), **fields)
    reason = None
    if len(ways.strides) != 2 or min(*ways.strides, ways.pool) < 1:
        reason = f"two strides and a pool of at least 1; got {ways.strides} and {ways.pool}"
    elif ways.pool_kind not in POOLS:
        reason = f"pool_kind of {' or '.join(POOLS)}; got {ways.pool_kind!r}"
    elif ways.pool_after is not None and not 0 <= ways.pool_after <= layers:
        reason = f"pool_after of 0 to {layers} layers; got {ways.pool_after}"
    elif ways.block is not None and (ways.block < ways.pool or ways.block % ways.pool):
        reason = f"a block of whole {ways.pool} positions; got {ways.block}"
    elif not ways.whole and (ways.pool > 1 or ways.causal):
        reason = "neither pool nor causal where whole is off"
    if reason is not None:
        raise ConfigError(f"whisper: expected {reason}. Correct the backbone config.")
    return ways
