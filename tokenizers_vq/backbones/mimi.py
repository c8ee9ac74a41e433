"""Mimi: convolutions and causal transformers at twice the rate of the latents.

Reference:
    Defossez et al., Moshi: a speech-text foundation model for real-time dialogue, 2024,
    https://arxiv.org/abs/2410.00037, section 3.3.1 and figure 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Decoder, Encoder
from tokenizers_vq.backbones.conv1d import Conv1d, ConvTranspose1d
from tokenizers_vq.backbones.seanet import SEANetDecoder, SEANetEncoder
from tokenizers_vq.backbones.stream_transformer import StreamTransformer, ways_of
from tokenizers_vq.backbones.streaming import Chain, State
from tokenizers_vq.types import SignalSpec

RATIOS = (8, 6, 5, 4)


class MimiEncoder(Encoder):
    """Convolutions, a transformer, and a convolution that halves the rate.

    Signals that do not fill the last position are completed with zeros, or each convolution
    completes its own. Nothing looks ahead: a latent is known with the last of its samples.

    Args:
        dim: latent width D, also that of the transformer.
        signal: what the samples mean.
        width: channels behind the first convolution; every level doubles them.
        ratios: strides of the convolutions in the order of the decoder, the coarsest first.
        conventions: fields of ``seanet.Conventions`` that differ from the defaults.
        transformer: fields of ``stream_transformer.Ways`` that differ from the defaults.
        resample: stride of the last convolution.
        whole: complete the signal; else each convolution completes what it gets, as the network of
            transformers does. Only the last latent of a signal that does not fill it differs.

    Shapes:
        x (B, C, T), T whole positions unless ``whole`` is off
        -> z (B, ceil(T / (resample * prod(ratios))), D)

    Raises:
        ConfigError: an option does not exist or has no such value.

    Example:
        >>> signal = SignalSpec("audio", 1, sample_rate=24000)
        >>> small = {"layers": 1, "heads": 2, "hidden": 16}
        >>> encoder = MimiEncoder(8, signal, 4, (4, 2), transformer=small)
        >>> encoder(torch.zeros(1, 1, 32)).shape
        torch.Size([1, 2, 8])
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 64,
        ratios: Sequence[int] = RATIOS,
        conventions: Mapping[str, Any] | None = None,
        transformer: Mapping[str, Any] | None = None,
        resample: int = 2,
        whole: bool = True,
    ) -> None:
        super().__init__(dim, (math.prod(ratios) * resample,), signal)
        self.any_length = not whole
        given = {"last_kernel": 3, **(conventions or {})}
        self.layers = Chain(
            SEANetEncoder(dim, signal, width, ratios, given).layers,
            StreamTransformer(dim, ways_of(transformer)),
            Conv1d(
                (dim, dim), 2 * resample, stride=resample,
                causal=given.get("causal", True), pad="replicate", bias=False,
            ),
        )  # fmt: skip

    def frame(self, x: Tensor) -> Tensor:
        """Return ``x (B, C, T)``, with zeros behind it where whole positions are wanted.

        Raises:
            ShapeError: another rank, or an empty axis.
        """
        if self.any_length:
            return super().frame(x)
        self.grid(x.shape[2:])
        return F.pad(x, (0, -x.shape[-1] % self.stride[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, T / stride, D)`` of signals ``(B, C, T)``."""
        self.check_signal(x)
        z: Tensor = self.layers(x)
        return z.mT

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the latents ``(B, n, D)`` that the next samples ``(B, C, m)`` decide."""
        seen, inner = state or (0, None)
        seen += x.shape[-1]
        if last and not self.any_length:
            x = F.pad(x, (0, -seen % self.stride[0]))
        z, inner = self.layers.step(x, inner, last)
        return z.mT, (seen % self.stride[0], inner)


class MimiDecoder(Decoder):
    """The mirror of ``MimiEncoder``; channels are raised to twice the rate each by itself.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        width: channels in front of the last convolution.
        ratios: strides, the coarsest first.
        conventions: fields of ``seanet.Conventions`` that differ from the defaults.
        transformer: fields of ``stream_transformer.Ways`` that differ from the defaults.
        resample: stride of the first transposed convolution.

    Shapes:
        z_q (B, T', D) -> x_hat (B, C, T' * resample * prod(ratios))

    Raises:
        ConfigError: an option does not exist or has no such value.
    """

    any_length = True

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 64,
        ratios: Sequence[int] = RATIOS,
        conventions: Mapping[str, Any] | None = None,
        transformer: Mapping[str, Any] | None = None,
        resample: int = 2,
    ) -> None:
        super().__init__(dim, (math.prod(ratios) * resample,), signal)
        given = {"last_kernel": 3, **(conventions or {})}
        causal = given.get("causal", True)
        self.layers = Chain(
            ConvTranspose1d(
                (dim, dim), 2 * resample, resample, groups=dim, causal=causal, bias=False
            ),
            StreamTransformer(dim, ways_of(transformer)),
            SEANetDecoder(dim, signal, width, ratios, given).layers,
        )

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        network: Any = self.layers[2]
        conv = network[-1].conv
        weight: Tensor = conv.weight
        if hasattr(conv, "parametrizations"):
            weight = conv.parametrizations.weight.original1
        return weight

    def forward(self, z_q: Tensor) -> Tensor:
        """Return signals ``(B, C, T' * stride)`` of latents ``(B, T', D)``."""
        self.check_latents(z_q)
        x_hat: Tensor = self.layers(z_q.mT)
        return x_hat

    def step(self, z_q: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the samples ``(B, C, m)`` that the next latents ``(B, n, D)`` decide."""
        return self.layers.step(z_q.mT, state, last)
