"""Decoder of latents at one rate to a spectrum per frame, and from there to samples.

There is no upsampling network: all layers work at the frame rate, and an inverse Fourier transform
with overlap makes the samples.

Reference:
    Siuzdak, Vocos: Closing the gap between time-domain and Fourier-based neural vocoders, 2023,
    https://arxiv.org/abs/2306.00814, section 3; Ji et al., WavTokenizer, 2024,
    https://arxiv.org/abs/2408.16532, section 3.3, for the attention in front of it.
    Differs from the authors' code: T latents always give ``T * stride`` samples, also with
    ``padding="center"``, where the last ``stride`` ones are cut there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Decoder
from tokenizers_vq.backbones.convnext import (
    EPS,
    KERNEL,
    AdaptiveNorm,
    ConvNeXtBlock,
    ConvNeXtStack,
    TimeConv,
    attention_front,
)
from tokenizers_vq.backbones.streaming import State
from tokenizers_vq.errors import ConfigError, unknown_option
from tokenizers_vq.functional.overlap_add import Padding, inverse_stft, inverse_stft_step
from tokenizers_vq.types import SignalSpec

LOUDEST = 100.0  # of a magnitude
PADDINGS = ("same", "center")
CHUNK = (
    "latents that are decoded at a time, with what `overlap` says around them; None for all at "
    "once, which is what short signals need"
)
OVERLAP = (
    "latents on each side of a chunk that are decoded along and left out; None for as many as the "
    "convolutions reach"
)
BANDWIDTH = "which of the trained bit rates the norms are set to, in order, from 0"


@dataclass(frozen=True)
class Conventions:
    """What the published decoders of this kind do differently.

    Attributes:
        padding: where the first spectrum lies: ``same`` in the middle of the first ``stride``
            samples, ``center`` at the first sample.
        attention: put residual convolutions and one attention over all latents in front.
        ids: settings of adaptive norms that ``decode(..., bandwidth_id=)`` chooses from; 0 for
            norms with one gain and bias.
        default_id: the setting without that option.
        dropout: of the residual convolutions in front, in training.
        causal: convolutions see the past only, so that signals can be decoded in pieces.
    """

    padding: Padding = "same"
    attention: bool = False
    ids: int = 0
    default_id: int = 0
    dropout: float = 0.1
    causal: bool = False


class VocosDecoder(Decoder):
    """ConvNeXt at the frame rate, then an inverse short-time Fourier transform.

    Without attention a sample depends on a few dozen latents, and decoding in chunks gives what
    decoding at once gives. With attention it depends on all latents that are decoded together.
    Published networks saw 3 seconds in training, and longer signals get noisy: decode those in
    chunks of 3 seconds, which is then another function, and for them the better one.

    Args:
        dim: latent width D.
        signal: what the samples mean; one channel.
        stride: samples per latent.
        width: channels of the network.
        inner: channels inside its blocks.
        depth: blocks.
        n_fft: samples of a spectrum's window; None for ``4 * stride``.
        conventions: fields of ``Conventions`` that differ from the defaults.

    Shapes:
        z_q (B, T', D) -> x_hat (B, 1, T' * stride)

    Raises:
        ConfigError: an option does not exist or has no such value.

    Example:
        >>> decoder = VocosDecoder(8, SignalSpec("audio", 1, sample_rate=16000), 80, 32, 64, 2)
        >>> decoder(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 1, 400])
    """

    any_length = True

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        stride: int = 320,
        width: int = 384,
        inner: int = 1152,
        depth: int = 8,
        n_fft: int | None = None,
        conventions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dim, (stride,), signal)
        self.ways = ways = conventions_of(conventions)
        self.n_fft = 4 * stride if n_fft is None else n_fft
        self._check(depth)
        self.embed = TimeConv(dim, width, causal=ways.causal)
        self.front = attention_front(width, ways.dropout) if ways.attention else nn.Identity()
        self.norm = AdaptiveNorm(width, ways.ids)
        self.blocks = ConvNeXtStack(
            ConvNeXtBlock(width, inner, ways.ids, 1 / depth, ways.causal) for _ in range(depth)
        )
        self.last_norm = nn.LayerNorm(width, eps=EPS)
        self.apply(_initialise)
        self.out = nn.Linear(width, self.n_fft + 2)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        options = {"chunk": CHUNK, "overlap": OVERLAP}
        self.options = MappingProxyType(
            {"bandwidth_id": BANDWIDTH, **options} if ways.ids else options
        )

    window: Tensor

    @property
    def last_layer(self) -> Tensor:
        """Weight of the layer that makes the spectra."""
        return self.out.weight

    @property
    def reach(self) -> int:
        """Latents on each side that a sample depends on, attention left aside."""
        convolutions = (1 + len(self.blocks)) * (KERNEL // 2) + 8 * self.ways.attention
        return convolutions + math.ceil(self.n_fft / 2 / self.stride[0])

    def forward(
        self,
        z_q: Tensor,
        bandwidth_id: int | None = None,
        chunk: int | None = None,
        overlap: int | None = None,
    ) -> Tensor:
        """Return signals ``(B, 1, T' * stride)`` of latents ``(B, T', D)``.

        Args:
            z_q: ``(B, T', D)``.
            bandwidth_id: setting of the adaptive norms; None for the default one.
            chunk: latents that are decoded at a time; None for all.
            overlap: latents on each side of a chunk that are decoded along; None for ``reach``,
                with which chunks give the samples of the whole where there is no attention.

        Raises:
            ShapeError: ``z_q`` has another rank or width.
            ConfigError: there is no such setting, or a chunk is below 1 or an overlap below 0.
        """
        self.check_latents(z_q)
        setting = self._setting(bandwidth_id)
        if chunk is None:
            return self._decode(z_q, setting)
        around = self.reach if overlap is None else overlap
        if chunk < 1 or around < 0:
            raise ConfigError(
                "VocosDecoder: expected chunks of 1 latent and more and overlaps of 0 and more; "
                f"got chunk {chunk}, overlap {around}. Without a chunk all is decoded at once."
            )
        count, step = z_q.shape[1], self.stride[0]
        pieces = []
        for start in range(0, count, chunk):
            first, stop = max(0, start - around), min(count, start + chunk)
            piece = self._decode(z_q[:, first : stop + around], setting)
            pieces.append(piece[..., (start - first) * step : (stop - first) * step])
        return torch.cat(pieces, dim=-1)

    def hidden(self, z_q: Tensor, bandwidth_id: int | None = None) -> Tensor:
        """Return what the spectra are made of, ``(B, T', width)``, of latents ``(B, T', D)``.

        Raises:
            ConfigError: there is no such setting of the norms.
        """
        setting = self._setting(bandwidth_id)
        h = self.norm(self.front(self.embed(z_q.mT)).mT, setting)
        last: Tensor = self.last_norm(self.blocks(h, setting))
        return last

    def step(self, z_q: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the samples ``(B, 1, m)`` that the next latents ``(B, n, D)`` decide.

        Raises:
            ConfigError: the decoder sees the future.
        """
        if not self.ways.causal:
            raise ConfigError(
                "stream: expected a causal decoder; got a VocosDecoder that sees the future. "
                "Decode whole signals, or choose a causal backbone."
            )
        setting = self.ways.default_id
        embed, blocks, sums = state or (None, None, None)
        h, embed = self.embed.step(z_q.mT, embed)
        h, blocks = self.blocks.step(self.norm(h.mT, setting), setting, blocks)
        x, sums = inverse_stft_step(
            self._spectra(self.last_norm(h)), *self._places, state=sums, last=last
        )
        return x.to(self.out.weight.dtype), (embed, blocks, sums)

    def _decode(self, z_q: Tensor, setting: int) -> Tensor:
        h = self.hidden(z_q, setting if self.ways.ids else None)
        x = inverse_stft(self._spectra(h), *self._places)
        return x.to(self.out.weight.dtype)

    def _spectra(self, h: Tensor) -> Tensor:
        """Return spectra ``(B, T', n_fft / 2 + 1)`` complex of hidden ``(B, T', width)``."""
        with torch.autocast(h.device.type, enabled=False):  # phases need all their digits
            weight, bias = self.out.weight.float(), self.out.bias.float()
            magnitude, phase = F.linear(h.float(), weight, bias).chunk(2, dim=-1)
            return torch.polar(magnitude.exp().clamp(max=LOUDEST), phase)

    @property
    def _places(self) -> tuple[Tensor, int, Padding]:
        return self.window.float(), self.stride[0], self.ways.padding

    def _setting(self, bandwidth_id: int | None) -> int:
        if bandwidth_id is None:
            return self.ways.default_id
        if not 0 <= bandwidth_id < self.ways.ids:
            raise ConfigError(
                f"VocosDecoder: expected a bandwidth_id of 0 to {self.ways.ids - 1}; got "
                f"{bandwidth_id}. They are the trained bit rates, in order."
                if self.ways.ids
                else "VocosDecoder: expected no bandwidth_id, as its norms have one setting; got "
                f"{bandwidth_id}. Leave it out."
            )
        return bandwidth_id

    def _check(self, depth: int) -> None:
        reason = None
        if self.signal.channels != 1:
            reason = f"a signal of 1 channel; got {self.signal.channels}"
        elif depth < 1:
            reason = f"at least 1 block; got {depth}"
        elif self.n_fft % 2 or self.n_fft < 2 * self.stride[0]:
            reason = f"an even n_fft of at least 2 x {self.stride[0]}, the stride; got {self.n_fft}"
        if reason is not None:
            raise ConfigError(f"vocos: expected {reason}. Correct the backbone config.")


def conventions_of(given: Mapping[str, Any] | None) -> Conventions:
    """Return the conventions with some fields replaced.

    Raises:
        ConfigError: a field does not exist, or its value cannot be.
    """
    fields = dict(given or {})
    for field in fields:
        if field not in (hints := get_type_hints(Conventions)):
            raise unknown_option("vocos", "conventions", field, hints)
    ways = replace(Conventions(), **fields)
    reason = None
    if ways.padding not in PADDINGS:
        reason = f"padding of {' or '.join(PADDINGS)}; got {ways.padding!r}"
    elif ways.causal and ways.attention:
        reason = "no attention in a causal decoder, as it sees all of the time; got both"
    elif ways.ids < 0 or not 0 <= ways.default_id < max(ways.ids, 1):
        reason = f"a default_id below the number of ids {ways.ids}; got {ways.default_id}"
    if reason is not None:
        raise ConfigError(f"vocos: expected {reason}. Correct the backbone config.")
    return ways


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
