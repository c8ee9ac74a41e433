"""One convolutional image encoder with its decoder, in the conventions of three families.

Both follow one plan: convolution in, levels of residual blocks with a resampling each, middle
blocks, convolution out. ``cnn2d_plan.Conventions`` lists the details in which the families differ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokenizers_vq.backbones.base import Decoder, Encoder
from tokenizers_vq.backbones.blocks import (
    AdaptiveGroupNorm,
    Downsample,
    Upsample,
    haar_patch,
    haar_unpatch,
    laid_out,
)
from tokenizers_vq.backbones.cnn2d_plan import Plan, conventions_of, rescale
from tokenizers_vq.errors import check_shape
from tokenizers_vq.types import SignalSpec

NOISE_OPTIONS = {
    "noise": "What a generative decoder invents from, (B, h, w, noise_channels); default drawn.",
    "generator": "A torch.Generator to draw the noise with; default the global one.",
}


class CNN2dEncoder(Encoder):
    """Convolutional image encoder.

    Args:
        dim: latent width D.
        signal: what the pixels mean; converted to the range the family works in.
        width: channels that ``channel_mult`` multiplies.
        channel_mult: width of each level, the finest first, in units of ``width``.
        blocks: residual blocks per level.
        family: whose conventions: ``taming``, ``magvit2`` or ``maskgit``.
        z_channels: width in front of the latent convolution; None means ``dim``.
        patch: side of the Haar cells folded into channels first; 1 for none.
        stride: pixels per latent position; None means a halving between any two levels. Fewer
            halvings are at the finest levels.
        conventions: fields of ``Conventions`` that differ from the family's.

    Shapes:
        x (B, C, H, W) -> z (B, H / stride, W / stride, D)

    Raises:
        ConfigError: an option does not exist, or the numbers do not fit each other.
        ShapeError: H or W is not a multiple of the stride.

    Reference:
        Esser et al., Taming Transformers for High-Resolution Image Synthesis, 2021,
        https://arxiv.org/abs/2012.09841, table 7; Luo et al., Open-MAGVIT2, 2024,
        https://arxiv.org/abs/2409.04410; Chang et al., MaskGIT, 2022,
        https://arxiv.org/abs/2202.04200. Differs: no dropout.

    Example:
        >>> encoder = CNN2dEncoder(8, SignalSpec("image"), width=16, channel_mult=(1, 2), blocks=1)
        >>> encoder(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 16, 24, 8])
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 128,
        channel_mult: Sequence[int] = (1, 1, 2, 2, 4),
        blocks: int = 2,
        family: str = "taming",
        z_channels: int | None = None,
        patch: int = 1,
        stride: int | None = None,
        conventions: Mapping[str, Any] | None = None,
    ) -> None:
        ways = conventions_of(family, conventions)
        plan = Plan(dim, width, channel_mult, blocks, z_channels, patch, stride, ways)
        super().__init__(dim, (plan.stride, plan.stride), signal)
        self.patch = patch
        self.value_range = ways.value_range
        self.conv_in = nn.Conv2d(signal.channels * patch**2, width, 3, padding=1, bias=ways.bias)
        self.down = nn.ModuleList()
        before = [width, *plan.widths]
        for i, out in enumerate(plan.widths):
            resample = Downsample(out, ways.down) if i < plan.downs else None
            self.down.append(plan.level(before[i], i, blocks, resample))
        self.mid = plan.middle()
        self.norm_out = plan.norm(plan.widths[-1])
        self.act_out = plan.activation()
        kernel = ways.out_kernel
        self.conv_out = nn.Conv2d(plan.widths[-1], plan.inner, kernel, padding=kernel // 2)
        self.quant_conv = plan.latent_conv(plan.inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, H / stride, W / stride, D)`` of pictures ``(B, C, H, W)``."""
        self.check_signal(x)
        h = haar_patch(rescale(x, self.signal.value_range, self.value_range), self.patch)
        h = self.conv_in(laid_out(h, self.conv_in.out_channels))
        for level in self.down:
            h = level(h)
        h = self.conv_out(self.act_out(self.norm_out(self.mid(laid_out(h)))))
        z: Tensor = self.quant_conv(h)
        return z.movedim(1, -1)  # (B, h, w, D)


class CNN2dDecoder(Decoder):
    """Convolutional image decoder; takes the options of ``CNN2dEncoder``.

    Args:
        dim: latent width D.
        signal: what the pixels mean; converted from the range the family works in.
        width: channels that ``channel_mult`` multiplies.
        channel_mult: width of each level, the finest first, in units of ``width``.
        blocks: residual blocks per encoder level; the family may add one here.
        family: whose conventions: ``taming``, ``magvit2`` or ``maskgit``.
        z_channels: width behind the latent convolution; None means ``dim``.
        patch: side of the Haar cells unfolded last; 1 for none.
        stride: pixels per latent position; None means a doubling between any two levels. Fewer
            doublings are at the coarsest levels.
        conventions: fields of ``Conventions`` that differ from the family's.
        noise_channels: channels of normal noise that the first convolution sees beside the
            latents: a generative decoder, which invents what the codes leave open.

    Shapes:
        z_q (B, h, w, D) -> x_hat (B, C, h * stride, w * stride), not clamped

    Raises:
        ConfigError: an option does not exist, or the numbers do not fit each other.
        ShapeError: ``z_q`` has another rank or width.

    Reference:
        As ``CNN2dEncoder``; ``noise_channels`` after Zhuang et al., WeTok, 2025,
        https://arxiv.org/abs/2508.05599 (generative decoding).
    """

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 128,
        channel_mult: Sequence[int] = (1, 1, 2, 2, 4),
        blocks: int = 2,
        family: str = "taming",
        z_channels: int | None = None,
        patch: int = 1,
        stride: int | None = None,
        conventions: Mapping[str, Any] | None = None,
        *,
        noise_channels: int = 0,
    ) -> None:
        ways = conventions_of(family, conventions)
        plan = Plan(dim, width, channel_mult, blocks, z_channels, patch, stride, ways)
        super().__init__(dim, (plan.stride, plan.stride), signal)
        self.patch = patch
        self.value_range = ways.value_range
        self.noise_channels = noise_channels
        self.options = NOISE_OPTIONS if noise_channels else {}
        self.post_quant_conv = plan.latent_conv(dim, plan.inner)
        self.conv_in = nn.Conv2d(plan.inner + noise_channels, plan.widths[-1], 3, padding=1)
        self.mid = plan.middle()
        self.up = nn.ModuleList()  # index 0 is the finest level, which runs last
        self.adaptive = nn.ModuleList()
        before = [*plan.widths, plan.widths[-1]]
        for i, out in enumerate(plan.widths):
            resample = Upsample(out, ways.up) if i >= len(plan.widths) - plan.downs else None
            self.up.append(plan.level(before[i + 1], i, blocks + ways.decoder_blocks, resample))
            if ways.adaptive:
                self.adaptive.append(AdaptiveGroupNorm(before[i + 1], dim, ways.norm, ways.groups))
        self.norm_out = plan.norm(plan.widths[0])
        self.act_out = plan.activation()
        self.conv_out = nn.Conv2d(plan.widths[0], signal.channels * patch**2, 3, padding=1)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        return self.conv_out.weight

    def forward(
        self,
        z_q: Tensor,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return pictures ``(B, C, h * stride, w * stride)`` of latents ``(B, h, w, D)``.

        Args:
            z_q: ``(B, h, w, D)``.
            noise: ``(B, h, w, noise_channels)``; None draws it anew at every call.
            generator: what to draw it with; None for the global one.

        Raises:
            ShapeError: ``z_q`` or ``noise`` has another shape.
        """
        self.check_latents(z_q)
        q = z_q.movedim(-1, 1)  # (B, D, h, w)
        h = self.post_quant_conv(q)
        if self.noise_channels:
            h = torch.cat([h, self._noise(z_q, noise, generator)], dim=1)
        h = self.mid(self.conv_in(laid_out(h, self.conv_in.out_channels)))
        for i in reversed(range(len(self.up))):
            if self.adaptive:
                h = self.adaptive[i](h, q)
            h = self.up[i](h)
        h = self.conv_out(self.act_out(self.norm_out(h)))
        return rescale(haar_unpatch(h, self.patch), self.value_range, self.signal.value_range)

    def _noise(
        self, z_q: Tensor, noise: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """Return ``(B, noise_channels, h, w)`` of noise, given or drawn."""
        shape = (*z_q.shape[:-1], self.noise_channels)
        if noise is None:
            # filled through the view, so that a seed gives the numbers that the authors' code draws
            return z_q.new_empty(shape).movedim(-1, 1).normal_(generator=generator)
        check_shape(noise, f"{' '.join(map(str, shape))}", "CNN2dDecoder", "It is channels last.")
        return noise.to(z_q).movedim(-1, 1)
