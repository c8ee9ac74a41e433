"""The transformer autoencoder of stable-codec: patches, a strided convolution, wide layers.

Reference:
    Parker et al., Scaling Transformers for Low-Bitrate High-Quality Speech Coding, 2024,
    https://arxiv.org/abs/2411.19842, section 3.1 and figure 1.
    Differs where widths change from block to block and activations are periodic: those of the
    decoder have the width in front of the transposed convolution, which they act on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Decoder, Encoder
from tokenizers_vq.backbones.conv1d import Conv1d, ConvTranspose1d, Norm
from tokenizers_vq.backbones.snake import SnakeBeta
from tokenizers_vq.backbones.stream_transformer import StreamTransformer, Ways, ways_of
from tokenizers_vq.backbones.streaming import Residual
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec

DILATIONS = (1, 3, 9)
HEAD = 128  # channels of an attention head
LAYER = {
    "past": 63, "future": 64, "mlp": "swiglu", "mlp_bias": True, "norm_bias": False, "eps": 1e-2,
    "qk_norm": True, "rotary": HEAD // 2, "layer_scale": 1e-5,
}  # fmt: skip


class TAAEEncoder(Encoder):
    """Patches of samples, then blocks of a strided convolution and transformer layers.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        patch: samples that become channels of one position.
        widths: channels behind the first convolution and behind each block.
        strides: of the blocks.
        depths: transformer layers of the blocks.
        transformer: fields of ``stream_transformer.Ways`` that differ from ``LAYER``; heads are
            128 channels wide and the MLP has four times the width unless it says otherwise.
        snake: periodic activations instead of none in front of convolutions.
        dilated: residual units with dilations 1, 3, 9 in front of strided convolutions.
        norm: of convolutions, ``weight`` or ``none``.

    Shapes:
        x (B, C, T), T whole positions -> z (B, T / (patch * prod(strides)), D)

    Raises:
        ConfigError: the lists are not of one stride and depth, and one width more.

    Example:
        >>> signal = SignalSpec("audio", 1, sample_rate=16000)
        >>> small = {"heads": 1, "rotary": 4, "hidden": 16}
        >>> encoder = TAAEEncoder(6, signal, 8, (8, 8), (2,), (1,), small)
        >>> encoder(torch.zeros(1, 1, 32)).shape
        torch.Size([1, 2, 6])
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        patch: int = 320,
        widths: Sequence[int] = (1024, 1024),
        strides: Sequence[int] = (2,),
        depths: Sequence[int] = (28,),
        transformer: Mapping[str, Any] | None = None,
        snake: bool = False,
        dilated: bool = False,
        norm: Norm = "weight",
    ) -> None:
        check_plan(widths, strides, depths)
        super().__init__(dim, (patch * math.prod(strides),), signal)
        self.patch = patch
        layers: list[nn.Module] = [Conv1d((signal.channels * patch, widths[0]), 7, norm=norm)]
        plan = zip(widths[:-1], widths[1:], strides, depths, strict=True)
        for before, after, stride, depth in plan:
            layers.append(
                nn.Sequential(
                    *(_units(before, norm) if dilated else ()),
                    _act(before, snake),
                    Conv1d((before, after), 2 * stride, stride=stride, norm=norm),
                    StreamTransformer(after, layer_ways(after, depth, transformer)),
                )
            )
        layers += [_act(widths[-1], snake), Conv1d((widths[-1], dim), 3, norm=norm)]
        self.layers = nn.Sequential(*layers)

    def frame(self, x: Tensor) -> Tensor:
        """Return ``x (B, C, T)`` with zeros behind it, up to whole positions.

        Raises:
            ShapeError: another rank, or an empty axis.
        """
        self.grid(x.shape[2:])
        return F.pad(x, (0, -x.shape[-1] % self.stride[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, T / stride, D)`` of signals ``(B, C, T)``."""
        self.check_signal(x)
        patches = x.reshape(*x.shape[:2], -1, self.patch).transpose(2, 3).flatten(1, 2)
        z: Tensor = self.layers(patches)
        return z.mT


class TAAEDecoder(Decoder):
    """The mirror of ``TAAEEncoder``: transformer layers in front of transposed convolutions.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        patch: samples that one last position becomes.
        widths: as for the encoder, in its order.
        strides: as for the encoder.
        depths: as for the encoder.
        transformer: as for the encoder.
        snake: as for the encoder.
        dilated: residual units behind transposed convolutions.
        norm: as for the encoder.

    Shapes:
        z_q (B, T', D) -> x_hat (B, C, T' * patch * prod(strides))

    Raises:
        ConfigError: as for the encoder.
    """

    any_length = True

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        patch: int = 320,
        widths: Sequence[int] = (1024, 1024),
        strides: Sequence[int] = (2,),
        depths: Sequence[int] = (28,),
        transformer: Mapping[str, Any] | None = None,
        snake: bool = False,
        dilated: bool = False,
        norm: Norm = "weight",
    ) -> None:
        check_plan(widths, strides, depths)
        super().__init__(dim, (patch * math.prod(strides),), signal)
        self.patch = patch
        layers: list[nn.Module] = [Conv1d((dim, widths[-1]), 3, norm=norm)]
        plan = list(zip(widths[1:], widths[:-1], strides, depths, strict=True))
        for before, after, stride, depth in reversed(plan):
            layers.append(
                nn.Sequential(
                    StreamTransformer(before, layer_ways(before, depth, transformer)),
                    _act(before, snake),
                    ConvTranspose1d((before, after), 2 * stride, stride, norm=norm),
                    *(_units(after, norm) if dilated else ()),
                )
            )
        layers.append(_act(widths[0], snake))
        layers.append(Conv1d((widths[0], signal.channels * patch), 7, norm=norm, bias=False))
        self.layers = nn.Sequential(*layers)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        last: Any = self.layers[-1]
        weight: Tensor = last.conv.weight
        if hasattr(last.conv, "parametrizations"):
            weight = last.conv.parametrizations.weight.original1
        return weight

    def forward(self, z_q: Tensor) -> Tensor:
        """Return signals ``(B, C, T' * stride)`` of latents ``(B, T', D)``."""
        self.check_latents(z_q)
        patches: Tensor = self.layers(z_q.mT)
        batch, _, count = patches.shape
        cut = patches.reshape(batch, self.signal.channels, self.patch, count)
        return cut.transpose(2, 3).flatten(2)


def check_plan(widths: Sequence[int], strides: Sequence[int], depths: Sequence[int]) -> None:
    """Raise ``ConfigError`` unless there is a stride and a depth per block and one width more."""
    if not len(widths) - 1 == len(strides) == len(depths) > 0:
        raise ConfigError(
            f"taae: expected a stride and a depth per block and one width more; got "
            f"{len(strides)} strides, {len(depths)} depths and {len(widths)} widths. Correct the "
            "backbone config."
        )


def layer_ways(width: int, depth: int, given: Mapping[str, Any] | None) -> Ways:
    """Return how ``depth`` layers of ``width`` channels are made.

    Raises:
        ConfigError: ``given`` has a field that does not exist.
    """
    sizes = {"layers": depth, "heads": max(1, width // HEAD), "hidden": 4 * width}
    return ways_of({**LAYER, **sizes, **(given or {})})


def _act(width: int, snake: bool) -> nn.Module:
    return SnakeBeta(width) if snake else nn.Identity()


def _units(width: int, norm: Norm) -> list[nn.Module]:
    return [
        Residual(
            nn.Sequential(
                SnakeBeta(width),
                Conv1d((width, width), 7, dilation=dilation, norm=norm),
                SnakeBeta(width),
                Conv1d((width, width), 1, norm=norm),
            )
        )
        for dilation in DILATIONS
    ]
