"""The convolutional audio encoder and decoder that most neural codecs share.

``Conventions`` lists the details in which EnCodec, its successors, Mimi and SpeechTokenizer differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

from torch import Tensor, nn

from tokenizers_vq.backbones.base import Decoder, Encoder
from tokenizers_vq.backbones.conv1d import LSTM, Conv1d, ConvTranspose1d, Norm, Pad
from tokenizers_vq.backbones.snake import Snake
from tokenizers_vq.backbones.streaming import Chain, Residual, State
from tokenizers_vq.errors import ConfigError, unknown_option
from tokenizers_vq.functional.segments import Segments
from tokenizers_vq.types import SignalSpec


@dataclass(frozen=True)
class Conventions:
    """What the published networks of this shape do differently; the defaults are for new ones.

    Attributes:
        causal: see the past only.
        pad: what is beyond the ends of the signal.
        norm: normalisation of convolutions; ``group`` sees all of the time.
        shortcut: a 1x1 convolution in the shortcut of residual units instead of the identity.
        residual_layers: residual units per level; unit j has dilation ``dilation_base ** j``.
        dilation_base: see there.
        compress: by how much residual units are narrower inside.
        lstm: recurrent layers between convolutions and latents; 0 for none.
        bidirectional: the encoder's recurrent layers also run from the end.
        activation: ``elu`` or ``snake``.
        kernel: taps of the first convolutions.
        last_kernel: taps of the last ones.
        residual_kernel: taps of the dilated convolutions of residual units.
    """

    causal: bool = True
    pad: Pad = "zeros"
    norm: Norm = "weight"
    shortcut: bool = False
    residual_layers: int = 1
    dilation_base: int = 2
    compress: int = 2
    lstm: int = 0
    bidirectional: bool = False
    activation: str = "elu"
    kernel: int = 7
    last_kernel: int = 7
    residual_kernel: int = 3


class SEANetEncoder(Encoder):
    """Convolutional audio encoder.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        width: channels behind the first convolution; every level doubles them.
        ratios: strides in the order of the decoder, the coarsest first, as they are published.
        conventions: fields of ``Conventions`` that differ from the defaults.
        segments: fields of ``Segments``, how signals are cut and scaled; None for neither.

    Shapes:
        x (B, C, T) of any length -> z (B, ceil(T / prod(ratios)), D)

    Raises:
        ConfigError: an option does not exist or has no such value.

    Reference:
        Tagliasacchi et al., SEANet, 2020, https://arxiv.org/abs/2009.02095; Defossez et al., 2022,
        https://arxiv.org/abs/2210.13438, section 3.1.

    Example:
        >>> encoder = SEANetEncoder(8, SignalSpec("audio", 1, sample_rate=16000), 4, (4, 2))
        >>> encoder(torch.zeros(1, 1, 30)).shape
        torch.Size([1, 4, 8])
    """

    any_length = True

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 32,
        ratios: Sequence[int] = (8, 5, 4, 2),
        conventions: Mapping[str, Any] | None = None,
        segments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dim, (math.prod(ratios),), signal)
        self.segments = None if segments is None else Segments(**segments)
        ways = conventions_of(conventions)
        layers: list[nn.Module] = [_conv(signal.channels, width, ways.kernel, ways)]
        for ratio in reversed(ratios):
            layers += _residuals(width, ways)
            layers += [_act(width, ways)]
            layers += [_conv(width, 2 * width, 2 * ratio, ways, ratio)]
            width *= 2
        if ways.lstm:
            layers.append(LSTM(width, ways.lstm, ways.bidirectional))
            width *= 2 if ways.bidirectional else 1
        layers += [_act(width, ways), _conv(width, dim, ways.last_kernel, ways)]
        self.layers = Chain(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, ceil(T / stride), D)`` of signals ``(B, C, T)``."""
        self.check_signal(x)
        z: Tensor = self.layers(x)
        return z.mT

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the latents ``(B, n, D)`` that the next samples ``(B, C, m)`` decide."""
        z, state = self.layers.step(x, state, last)
        return z.mT, state


class SEANetDecoder(Decoder):
    """Convolutional audio decoder, the mirror of ``SEANetEncoder``.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        width: channels in front of the last convolution.
        ratios: strides, the coarsest first.
        conventions: fields of ``Conventions`` that differ from the defaults.

    Shapes:
        z_q (B, T', D) -> x_hat (B, C, T' * prod(ratios))

    Raises:
        ConfigError: an option does not exist or has no such value.
    """

    any_length = True

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 32,
        ratios: Sequence[int] = (8, 5, 4, 2),
        conventions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dim, (math.prod(ratios),), signal)
        ways = conventions_of(conventions)
        width *= 2 ** len(ratios)
        layers: list[nn.Module] = [_conv(dim, width, ways.kernel, ways)]
        if ways.lstm:
            layers.append(LSTM(width, ways.lstm))
        for ratio in ratios:
            layers.append(_act(width, ways))
            layers.append(
                ConvTranspose1d(
                    (width, width // 2), 2 * ratio, ratio, causal=ways.causal, norm=ways.norm
                )
            )
            width //= 2
            layers += _residuals(width, ways)
        layers += [_act(width, ways), _conv(width, signal.channels, ways.last_kernel, ways)]
        self.layers = Chain(*layers)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        conv: Any = self.layers[-1]
        weight: Tensor = conv.conv.weight
        if hasattr(conv.conv, "parametrizations"):
            weight = conv.conv.parametrizations.weight.original1
        return weight

    def forward(self, z_q: Tensor) -> Tensor:
        """Return signals ``(B, C, T' * stride)`` of latents ``(B, T', D)``."""
        self.check_latents(z_q)
        x_hat: Tensor = self.layers(z_q.mT)
        return x_hat

    def step(self, z_q: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the samples ``(B, C, m)`` that the next latents ``(B, n, D)`` decide."""
        return self.layers.step(z_q.mT, state, last)


def conventions_of(given: Mapping[str, Any] | None) -> Conventions:
    """Return the conventions with some fields replaced.

    Raises:
        ConfigError: a field does not exist, or its value cannot be.
    """
    fields = dict(given or {})
    hints = get_type_hints(Conventions)
    for field, value in fields.items():
        if field not in hints:
            raise unknown_option("seanet", "conventions", field, hints)
        choices = CHOICES.get(field)
        if (choices and value not in choices) or (hints[field] is int and not value >= 0):
            raise ConfigError(
                f"seanet {field}: expected {' or '.join(choices or ['a number of 0 or more'])}; "
                f"got {value!r}. Correct the backbone config."
            )
    return replace(Conventions(), **fields)


CHOICES: dict[str, tuple[str, ...]] = {
    "pad": ("zeros", "reflect", "replicate"),
    "norm": ("none", "weight", "group"),
    "activation": ("elu", "snake"),
}


def _conv(
    before: int, after: int, kernel: int, ways: Conventions, stride: int = 1, dilation: int = 1
) -> Conv1d:
    return Conv1d(
        (before, after), kernel, stride=stride, dilation=dilation,
        causal=ways.causal, pad=ways.pad, norm=ways.norm,
    )  # fmt: skip


def _act(width: int, ways: Conventions) -> nn.Module:
    return Snake(width) if ways.activation == "snake" else nn.ELU()


def _residuals(width: int, ways: Conventions) -> list[nn.Module]:
    inner = width // ways.compress
    units: list[nn.Module] = []
    for j in range(ways.residual_layers):
        branch = Chain(
            _act(width, ways),
            _conv(width, inner, ways.residual_kernel, ways, dilation=ways.dilation_base**j),
            _act(inner, ways),
            _conv(inner, width, 1, ways),
        )
        units.append(Residual(branch, _conv(width, width, 1, ways) if ways.shortcut else None))
    return units
