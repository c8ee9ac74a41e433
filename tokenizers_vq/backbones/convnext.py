"""Layers along time that keep the rate: ConvNeXt blocks, and convolutions around attention.

Reference:
    Siuzdak, Vocos, 2023, https://arxiv.org/abs/2306.00814, section 3; Ji et al., WavTokenizer,
    2024, https://arxiv.org/abs/2408.16532, section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.blocks import GroupNorm

EPS = 1e-6
KERNEL = 7


class AdaptiveNorm(nn.Module):
    """Layer normalisation whose gain and bias are chosen by a number.

    Args:
        width: channels C.
        ids: how many gains and biases; 0 for one without a choice.

    Shapes:
        x (B, T, C) -> (B, T, C)
    """

    def __init__(self, width: int, ids: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(max(ids, 1), width))
        self.shift = nn.Parameter(torch.zeros(max(ids, 1), width))

    def forward(self, x: Tensor, setting: int) -> Tensor:
        """Return ``x`` normalised over channels, with the gain and bias of ``setting``."""
        return F.layer_norm(x, x.shape[-1:], self.scale[setting], self.shift[setting], EPS)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, two linear layers and a scale, added to the input.

    Args:
        width: channels C.
        inner: channels between the linear layers.
        ids: as in ``AdaptiveNorm``.
        scale: what the learned scale of the branch starts at.

    Shapes:
        x (B, T, C) -> (B, T, C)

    Reference:
        Liu et al., A ConvNet for the 2020s, 2022, https://arxiv.org/abs/2201.03545, section 2.
    """

    def __init__(self, width: int, inner: int, ids: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = AdaptiveNorm(width, ids)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.gamma = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor, setting: int) -> Tensor:
        """Return ``x`` plus the branch."""
        h = self.norm(self.depthwise(x.mT).mT, setting)
        branch: Tensor = self.contract(F.gelu(self.expand(h)))
        return x + self.gamma * branch


def attention_front(width: int, dropout: float) -> nn.Sequential:
    """Return two residual convolutions, attention over all of the time, two more, and a norm.

    Args:
        width: channels C.
        dropout: inside the residual convolutions, in training.
    """
    first, second, third, fourth = (ResidualConvs(width, dropout) for _ in range(4))
    return nn.Sequential(first, second, TimeAttention(width), third, fourth, GroupNorm(width))


class ResidualConvs(nn.Module):
    """Norm, swish, convolution of 3, twice, added to the input; the VQGAN line's block in time.

    Args:
        width: channels C.
        dropout: before the second convolution, in training.

    Shapes:
        x (B, C, T) -> (B, C, T)
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(width), GroupNorm(width)
        self.conv1 = nn.Conv1d(width, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the branch."""
        h = self.conv1(F.silu(self.norm1(x)))
        branch: Tensor = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return x + branch


class TimeAttention(nn.Module):
    """Attention with one head over all positions, which have no embedding, added to the input.

    Args:
        width: channels C.

    Shapes:
        x (B, C, T) -> (B, C, T)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = GroupNorm(width)
        self.q, self.k, self.v, self.proj = (nn.Conv1d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus what every position reads from all."""
        h = self.norm(x)
        q, k, v = (layer(h).mT[:, None] for layer in (self.q, self.k, self.v))  # (B, 1, T, C)
        read: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v)[:, 0].mT)
        return x + read
