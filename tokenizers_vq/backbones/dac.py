"""The convolutional audio networks of DAC and of the codecs made after it, SNAC and BigCodec.

``Conventions`` lists the details in which these differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Decoder, Encoder
from tokenizers_vq.backbones.conv1d import LSTM
from tokenizers_vq.backbones.dac_layers import (
    Noise,
    Stage,
    WindowAttention,
    activate,
    conv,
    unit,
    up_conv,
)
from tokenizers_vq.errors import ConfigError, check_shape, unknown_option
from tokenizers_vq.types import SignalSpec

ACTIVATIONS = ("snake", "snake_beta")


@dataclass(frozen=True)
class Conventions:
    """What the published networks of this shape do differently; the defaults are for new ones.

    Attributes:
        dilations: one residual unit of every level for each.
        depthwise: the 7 taps of residual units, and the outermost convolutions of the latents, are
            for each channel alone.
        activation: ``snake``, or ``snake_beta`` at twice the sample rate against aliasing.
        attention: positions per window of an attention next to the latents; 0 for none.
        lstm: recurrent layers next to the latents; 0 for none.
        plain_end: the encoder ends in one convolution of its own width without an activation.
        noise: every level of the decoder adds noise of a learned loudness.
        whole: T latents decode to ``T * stride`` samples. Without, a transposed convolution of odd
            stride is one position short, and zeros stand for the samples that it lacks.
        weight_norm: of all convolutions; imported weights have it multiplied out.
        multiple: signals are padded until the number of latents is one of this.
        extra_frame: signals of whole latents are padded by one more.
    """

    dilations: Sequence[int] = (1, 3, 9)
    depthwise: bool = False
    activation: str = "snake"
    attention: int = 0
    lstm: int = 0
    plain_end: bool = False
    noise: bool = False
    whole: bool = True
    weight_norm: bool = True
    multiple: int = 1
    extra_frame: bool = False


class DACEncoder(Encoder):
    """Convolutional audio encoder with periodic activations.

    Args:
        dim: latent width D; with ``plain_end`` that of the last level.
        signal: what the samples mean.
        width: channels behind the first convolution; every level doubles them.
        ratios: strides of the levels in their order.
        conventions: fields of ``Conventions`` that differ from the defaults.

    Shapes:
        x (B, C, T), T whole strides -> z (B, T / prod(ratios), D)

    Raises:
        ConfigError: an option does not exist or has no such value.

    Reference:
        Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, 2023,
        https://arxiv.org/abs/2306.06546, section 3.1 and table 1;
        Siuzdak et al., SNAC, 2024, https://arxiv.org/abs/2410.14411, section 2 (depthwise
        convolutions, windows of attention);
        Xin et al., BigCodec, 2024, https://arxiv.org/abs/2409.05377, section 2.1.

    Example:
        >>> encoder = DACEncoder(8, SignalSpec("audio", 1, sample_rate=16000), 4, (2, 4))
        >>> encoder(torch.zeros(1, 1, 32)).shape
        torch.Size([1, 4, 8])
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 64,
        ratios: Sequence[int] = (2, 4, 8, 8),
        conventions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dim, (math.prod(ratios),), signal)
        ways = self.ways = conventions_of(conventions)
        norm = ways.weight_norm
        layers: list[nn.Module] = [conv(signal.channels, width, 7, norm=norm)]
        for ratio in ratios:
            down = conv(width, 2 * width, 2 * ratio, stride=ratio, norm=norm)
            layers.append(Stage(*_units(width, ways), activate(width, ways.activation), down))
            width *= 2
        layers += _context(width, ways)
        if ways.plain_end and dim != width:
            raise ConfigError(
                f"dac: expected the width of the last level, {width}, as dim; got {dim}. "
                "Set dim to that, or plain_end to false."
            )
        if ways.plain_end:
            layers += [conv(width, dim, 7, groups=width if ways.depthwise else 1, norm=norm)]
        else:
            layers += [activate(width, ways.activation), conv(width, dim, 3, norm=norm)]
        self.layers = nn.Sequential(*layers)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the number of latents of a signal with ``shape`` samples, as it is padded."""
        (count,) = super().grid(shape)
        if self.ways.extra_frame and shape[0] % self.stride[0] == 0:
            count += 1
        return (count + -count % self.ways.multiple,)

    def frame(self, x: Tensor) -> Tensor:
        """Return ``x (B, C, T)`` with zeros behind it, to what ``grid`` says."""
        check_shape(x, f"B {self.signal.channels} T", type(self).__name__, "Channels go first.")
        (count,) = self.grid(tuple(x.shape[2:]))
        return F.pad(x, (0, count * self.stride[0] - x.shape[2]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, T / stride, D)`` of signals ``(B, C, T)``."""
        self.check_signal(x)
        z: Tensor = self.layers(x)
        return z.mT


class DACDecoder(Decoder):
    """Convolutional audio decoder, the mirror of ``DACEncoder``; samples are in (-1, 1).

    Args:
        dim: latent width D.
        signal: what the samples mean.
        width: channels behind the first convolution; every level halves them.
        ratios: strides of the levels in their order.
        conventions: fields of ``Conventions`` that differ from the defaults.

    Shapes:
        z_q (B, T', D) -> x_hat (B, C, T' * prod(ratios))

    Raises:
        ConfigError: an option does not exist or has no such value.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 1536,
        ratios: Sequence[int] = (8, 8, 4, 2),
        conventions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dim, (math.prod(ratios),), signal)
        ways = self.ways = conventions_of(conventions)
        norm = ways.weight_norm
        layers: list[nn.Module] = [conv(dim, width, 7, norm=norm)]
        if ways.depthwise:
            layers = [conv(dim, dim, 7, groups=dim, norm=norm), conv(dim, width, 1, norm=norm)]
        layers += _context(width, ways)
        for ratio in ratios:
            half = width // 2
            up = up_conv(width, half, ratio, whole=ways.whole, norm=norm)
            noise = [Noise(half, norm)] if ways.noise else []
            layers.append(Stage(activate(width, ways.activation), up, *noise, *_units(half, ways)))
            width = half
        layers += [
            activate(width, ways.activation),
            conv(width, signal.channels, 7, norm=norm),
            nn.Tanh(),
        ]
        self.layers = Stage(*layers)
        if ways.noise:
            text = "torch.Generator that draws the noise; None for torch's global one"
            self.options = MappingProxyType({"generator": text})

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        last: Any = self.layers[-2]
        weight: Tensor = last.weight
        if hasattr(last, "parametrizations"):
            weight = last.parametrizations.weight.original1
        return weight

    def forward(self, z_q: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return signals ``(B, C, T' * stride)`` of latents ``(B, T', D)``.

        Args:
            z_q: ``(B, T', D)``.
            generator: of the noise, where there is any; None for torch's global one.
        """
        self.check_latents(z_q)
        x = z_q.mT
        for layer in self.layers:
            x = layer(x, generator) if isinstance(layer, Stage) else layer(x)
        missing = z_q.shape[1] * self.stride[0] - x.shape[2]
        return F.pad(x, (0, missing)) if missing else x


def conventions_of(given: Mapping[str, Any] | None) -> Conventions:
    """Return the conventions with some fields replaced.

    Raises:
        ConfigError: a field does not exist, or its value cannot be.
    """
    fields = dict(given or {})
    hints = get_type_hints(Conventions)
    for field, value in fields.items():
        if field not in hints:
            raise unknown_option("dac", "conventions", field, hints)
        wrong = ""
        if field == "activation" and value not in ACTIVATIONS:
            wrong = " or ".join(ACTIVATIONS)
        elif hints[field] is int and not value >= (field == "multiple"):
            wrong = f"a number of {int(field == 'multiple')} or more"
        if wrong:
            raise ConfigError(
                f"dac {field}: expected {wrong}; got {value!r}. Correct the backbone config."
            )
    return replace(Conventions(), **fields)


def _units(width: int, ways: Conventions) -> list[nn.Module]:
    groups = width if ways.depthwise else 1
    return [
        unit(width, dilation, ways.activation, groups, ways.weight_norm)
        for dilation in ways.dilations
    ]


def _context(width: int, ways: Conventions) -> list[nn.Module]:
    """Return the layers next to the latents that see far."""
    attention = [WindowAttention(width, ways.attention)] if ways.attention else []
    return [*attention, *([LSTM(width, ways.lstm)] if ways.lstm else [])]
