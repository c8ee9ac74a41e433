"""Encoder of spectra, one per latent: the mirror of the decoder that ends in an inverse transform.

There is no downsampling network: a Fourier transform makes one spectrum per latent, and all layers
work at that rate, which is what makes it cheap on a processor without an accelerator.

Reference:
    Siuzdak, Vocos, 2023, https://arxiv.org/abs/2306.00814, section 3, for the layers; Wisdom et
    al., Differentiable Consistency Constraints, 2019, https://arxiv.org/abs/1811.08521, section 4,
    for spectra whose magnitudes are compressed by a power. The encoder is this library's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Encoder
from tokenizers_vq.backbones.convnext import (
    EPS,
    AdaptiveNorm,
    ConvNeXtBlock,
    ConvNeXtStack,
)
from tokenizers_vq.backbones.streaming import State
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec

FLOOR = 1e-4
"""Added to magnitudes before their logarithm: -80 dB of noise at full scale."""
POWER = 0.3
"""Of the magnitudes that carry the phases."""


class SpectrumEncoder(Encoder):
    """Spectra of overlapping windows, then ConvNeXt blocks that see the past only.

    A window reaches as far beyond its ``stride`` samples as the windows of ``VocosDecoder`` with
    the same ``n_fft``, on both sides: a latent waits for ``(n_fft - stride) / 2`` samples more.

    Args:
        dim: latent width D.
        signal: what the samples mean; one channel.
        stride: samples per latent position.
        width: channels of the network.
        inner: channels inside its blocks.
        depth: blocks.
        n_fft: samples of a window; None for ``2 * stride``.

    Shapes:
        x (B, 1, T) of any length -> z (B, ceil(T / stride), D)

    Raises:
        ConfigError: an option has no such value.

    Example:
        >>> encoder = SpectrumEncoder(8, SignalSpec("audio", 1, sample_rate=16000), 80, 32, 64, 1)
        >>> encoder(torch.zeros(1, 1, 100)).shape
        torch.Size([1, 2, 8])
    """

    any_length = True

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        stride: int = 256,
        width: int = 192,
        inner: int = 576,
        depth: int = 3,
        n_fft: int | None = None,
    ) -> None:
        super().__init__(dim, (stride,), signal)
        self.n_fft = 2 * stride if n_fft is None else n_fft
        self._check(depth)
        self.embed = nn.Linear(3 * (self.n_fft // 2 + 1), width)
        self.norm = AdaptiveNorm(width, 0)
        self.blocks = ConvNeXtStack(
            ConvNeXtBlock(width, inner, 0, 1 / depth, causal=True) for _ in range(depth)
        )
        self.last_norm = nn.LayerNorm(width, eps=EPS)
        self.out = nn.Linear(width, dim)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    window: Tensor

    @property
    def lookahead_samples(self) -> int:
        """Samples behind its own that a latent waits for."""
        return (self.n_fft - self.stride[0]) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, ceil(T / stride), D)`` of signals ``(B, 1, T)``."""
        self.check_signal(x)
        side = self.lookahead_samples
        x = F.pad(x, (side, side + -x.shape[-1] % self.stride[0]))
        return self._latents(self.blocks(self._embedded(x), 0))

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the latents ``(B, n, D)`` that the next samples ``(B, 1, m)`` decide."""
        side, stride = self.lookahead_samples, self.stride[0]
        held, blocks = state or (x.new_zeros(len(x), 1, side), None)
        held = torch.cat([held, x], dim=-1)
        if last:  # all but the window's sides are samples that wait for their latent
            held = F.pad(held, (0, side + -(held.shape[-1] - side) % stride))
        count = max(0, (held.shape[-1] - self.n_fft) // stride + 1)
        h, blocks = self.blocks.step(self._embedded(held, count), 0, blocks)
        return self._latents(h), (held[..., count * stride :], blocks)

    def _embedded(self, x: Tensor, count: int | None = None) -> Tensor:
        """Return ``(B, n, width)`` of the windows of padded samples ``(B, 1, m)``."""
        if count == 0:
            return x.new_zeros(len(x), 0, self.embed.out_features)
        frames = x[:, 0].unfold(-1, self.n_fft, self.stride[0])
        with torch.autocast(x.device.type, enabled=False):
            window = self.window.float()
            z = torch.fft.rfft(frames.float() * window) / window.square().sum().sqrt()
            magnitude = z.abs()
            phases = torch.view_as_real(z / (magnitude + FLOOR) ** (1 - POWER)).flatten(-2)
            seen = torch.cat([(magnitude + FLOOR).log() / 4, phases], dim=-1)
        h: Tensor = self.norm(self.embed(seen.to(x.dtype)), 0)
        return h

    def _latents(self, h: Tensor) -> Tensor:
        z: Tensor = self.out(self.last_norm(h))
        return z

    def _check(self, depth: int) -> None:
        reason = None
        if self.signal.channels != 1:
            reason = f"a signal of 1 channel; got {self.signal.channels}"
        elif depth < 1:
            reason = f"at least 1 block; got {depth}"
        elif (self.n_fft - self.stride[0]) % 2 or self.n_fft < 2 * self.stride[0]:
            reason = (
                f"an n_fft of at least 2 x {self.stride[0]}, the stride, and as odd or even as "
                f"it; got {self.n_fft}"
            )
        if reason is not None:
            raise ConfigError(f"spectrum: expected {reason}. Correct the backbone config.")
