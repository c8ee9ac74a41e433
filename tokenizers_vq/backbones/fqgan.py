"""The image CNN with one transformer per codebook on top: each looks at the same features.

Reference:
    Bai et al., Factorized Visual Tokenization and Generation, 2024,
    https://arxiv.org/abs/2411.16681, section 3.1, figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizers_vq.backbones.base import Encoder
from tokenizers_vq.backbones.blocks import Downsample, GroupNorm
from tokenizers_vq.backbones.cnn2d import CNN2dDecoder
from tokenizers_vq.backbones.cnn2d_plan import Conventions, Plan, rescale
from tokenizers_vq.backbones.transformer import Transformer, learned
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec


class Adapter(nn.Module):
    """Turns features into the channels of one codebook: a transformer, then convolutions.

    Args:
        width: channels of the features.
        side: positions per axis.
        layers: blocks of the transformer.
        heads: attention heads.
        inner: channels between the two convolutions.
        dim: channels of the codebook.

    Shapes:
        h (B, width, side, side) -> (B, dim, side, side)
    """

    def __init__(
        self, width: int, side: int, layers: int, heads: int, inner: int, dim: int
    ) -> None:
        super().__init__()
        self.positions = learned(side * side, width)
        self.transformer = Transformer(width, layers, heads)
        self.norm_out = GroupNorm(width)
        self.conv_out = nn.Conv2d(width, inner, 3, padding=1)
        self.quant_conv = nn.Conv2d(inner, dim, 1)

    def forward(self, h: Tensor) -> Tensor:
        """Return the channels of the codebook."""
        rows = self.transformer(h.flatten(2).mT + self.positions)  # (B, side * side, width)
        h = self.norm_out(rows.mT.reshape(h.shape))
        z: Tensor = self.quant_conv(self.conv_out(F.silu(h)))
        return z


class FQGANEncoder(Encoder):
    """Convolutional encoder whose latent channels come from one adapter per codebook.

    The trunk is that of VQGAN. The positions are learned, so it takes one size. For the head
    ``grouped`` with as many groups: group k gets the channels of adapter k. In the published models
    the first one is for details, the others for meaning: those learn beside the rest to predict
    representations of another network.

    Args:
        dim: latent width D, that of all codebooks together.
        signal: what the pixels mean; the network works in [-1, 1].
        width: channels that ``channel_mult`` multiplies.
        channel_mult: width of each level, the finest first, in units of ``width``.
        blocks: residual blocks per level.
        z_channels: channels in front of the last convolution of an adapter.
        codebooks: number of adapters.
        size: pixels per axis.
        layers: blocks of each adapter's transformer.
        heads: its attention heads.

    Shapes:
        x (B, C, size, size) -> z (B, size / stride, size / stride, D)

    Raises:
        ConfigError: ``codebooks`` does not divide ``dim``, the stride does not divide ``size``, or
            the numbers do not fit each other.
        ShapeError: the picture has another size.

    Reference:
        Bai et al., 2024, https://arxiv.org/abs/2411.16681, section 3.1.

    Example:
        >>> options = {"width": 8, "channel_mult": (1, 2), "blocks": 1, "layers": 1, "heads": 2}
        >>> encoder = FQGANEncoder(16, SignalSpec("image"), size=32, **options)
        >>> encoder(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 16, 16, 16])
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 128,
        channel_mult: Sequence[int] = (1, 1, 2, 2, 4),
        blocks: int = 2,
        z_channels: int = 256,
        codebooks: int = 2,
        size: int = 256,
        layers: int = 6,
        heads: int = 8,
    ) -> None:
        plan = Plan(dim, width, channel_mult, blocks, z_channels, 1, None, Conventions())
        super().__init__(dim, (plan.stride, plan.stride), signal)
        if codebooks < 1 or dim % codebooks or size < 1 or size % plan.stride:
            raise ConfigError(
                f"FQGANEncoder: expected codebooks that divide dim, and a size that is a multiple "
                f"of {plan.stride}; got {codebooks} codebooks, dim {dim} and size {size}. "
                "Correct the backbone config."
            )
        self.size = (size, size)
        self.conv_in = nn.Conv2d(signal.channels, width, 3, padding=1)
        self.down = nn.ModuleList()
        before = [width, *plan.widths]
        for i, out in enumerate(plan.widths):
            resample = Downsample(out, "end") if i < plan.downs else None
            self.down.append(plan.level(before[i], i, blocks, resample))
        self.mid = plan.middle()
        side, last = size // plan.stride, plan.widths[-1]
        self.adapters = nn.ModuleList(
            Adapter(last, side, layers, heads, z_channels, dim // codebooks)
            for _ in range(codebooks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, size / stride, size / stride, D)`` of ``(B, C, size, size)``."""
        self.check_signal(x)
        h = self.conv_in(rescale(x, self.signal.value_range, Conventions().value_range))
        for level in self.down:
            h = level(h)
        h = self.mid(h)
        z = torch.cat([adapter(h) for adapter in self.adapters], dim=1)
        return z.movedim(1, -1)  # (B, h, w, D)


class FQGANDecoder(CNN2dDecoder):
    """The decoder of FQGAN: VQGAN's, from the channels of all codebooks side by side.

    It decodes grids of any size; the encoder takes one.

    Args:
        dim: latent width D, that of all codebooks together.
        signal: what the pixels mean; the network works in [-1, 1].
        width: channels that ``channel_mult`` multiplies.
        channel_mult: width of each level, the finest first, in units of ``width``.
        blocks: residual blocks per encoder level; a decoder level has one more.
        z_channels: width behind the latent convolution.

    Shapes:
        z_q (B, h, w, D) -> x_hat (B, C, h * stride, w * stride), not clamped

    Raises:
        ConfigError: the numbers do not fit each other.
        ShapeError: ``z_q`` has another rank or width.

    Reference:
        As ``FQGANEncoder``.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 128,
        channel_mult: Sequence[int] = (1, 1, 2, 2, 4),
        blocks: int = 2,
        z_channels: int = 256,
    ) -> None:
        super().__init__(dim, signal, width, channel_mult, blocks, z_channels=z_channels)
