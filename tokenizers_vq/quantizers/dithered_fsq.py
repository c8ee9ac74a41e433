"""Finite scalar quantization that adds noise in training instead of rounding.

Reference:
    Parker et al., Scaling Transformers for Low-Bitrate High-Quality Speech Coding, 2024,
    https://arxiv.org/abs/2411.19842 (the bottleneck's training; its probabilities are those of the
    released code).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.flat import Flat, Tokens
from tokenizers_vq.quantizers.fsq import FSQ


class DitheredFSQ(FSQ):
    """Finite scalar quantization with dither: a decoder that was trained to live with any levels.

    The grid is the symmetric one, tanh to L levels from -1 to 1. In training each item of the
    batch passes in one of three ways: its bounded latents plus uniform noise one level wide, those
    latents as they are, or their codes. Indices are always those of the codes, and evaluation
    always rounds. Since the decoder has seen every value between two levels, another number of
    levels, or a residual stack of a few, can be chosen after training.

    Args:
        dim: latent width D; None for the number of channels.
        levels: number of levels per channel; their product is the codebook size.
        noise_dropout: probability that an item gets no noise.
        rounding: probability that an item without noise is rounded.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Raises:
        ConfigError: ``levels`` are none that FSQ takes, or a probability is not in 0..1.

    Example:
        >>> q = DitheredFSQ(dim=16, levels=(17, 17))
        >>> q(torch.zeros(2, 4, 4, 16)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        levels: Sequence[int],
        noise_dropout: float = 0.5,
        rounding: float = 0.5,
    ) -> None:
        super().__init__(dim, levels=levels, bound="symmetric")
        for name, value in (("noise_dropout", noise_dropout), ("rounding", rounding)):
            if not 0 <= value <= 1:
                raise ConfigError(
                    f"DitheredFSQ: expected {name} in 0..1; got {value}. It is a probability."
                )
        self.noise_dropout = noise_dropout
        self.rounding = rounding

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize ``u (N, d)``; in training let each item pass rounded, smooth or noisy."""
        flat = super().quantize(u, source, tokens)
        if not self.training:
            return flat
        smooth = self._bounded(source)
        noisy = smooth + (torch.rand_like(smooth) - 0.5) / self._width
        quiet, rounded = torch.rand(2, tokens.batch, 1, device=u.device)[:, tokens.item]
        out = torch.where(rounded < self.rounding, flat.out, smooth)
        return replace(flat, out=torch.where(quiet < self.noise_dropout, out, noisy))
