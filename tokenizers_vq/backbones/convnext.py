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
from tokenizers_vq.backbones.streaming import State

EPS = 1e-6
KERNEL = 7


class TimeConv(nn.Conv1d):
    """Convolution of ``KERNEL`` taps that keeps the length; zeros are beyond the ends.

    Args:
        before: channels in.
        after: channels out.
        groups: of channels.
        causal: see the past only.

    Shapes:
        x (B, C_in, T) -> (B, C_out, T)
    """

    def __init__(self, before: int, after: int, groups: int = 1, causal: bool = False) -> None:
        side = 0 if causal else KERNEL // 2
        super().__init__(before, after, KERNEL, padding=side, groups=groups)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C_out, T)`` of ``x (B, C_in, T)``."""
        return super().forward(F.pad(x, (KERNEL - 1, 0)) if self.causal else x)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the outputs for the next ``x (B, C_in, n)``, and the last inputs."""
        past = x.new_zeros(*x.shape[:2], KERNEL - 1) if state is None else state
        held = torch.cat([past, x], dim=-1)
        y = super().forward(held) if x.shape[-1] else x.new_zeros(len(x), self.out_channels, 0)
        return y, held[..., x.shape[-1] :]


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
        causal: see the past only.

    Shapes:
        x (B, T, C) -> (B, T, C)

    Reference:
        Liu et al., A ConvNet for the 2020s, 2022, https://arxiv.org/abs/2201.03545, section 2.
    """

    def __init__(
        self, width: int, inner: int, ids: int, scale: float, causal: bool = False
    ) -> None:
        super().__init__()
        self.depthwise = TimeConv(width, width, width, causal)
        self.norm = AdaptiveNorm(width, ids)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.gamma = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor, setting: int) -> Tensor:
        """Return ``x`` plus the branch."""
        return self._added(x, self.depthwise(x.mT), setting)

    def step(self, x: Tensor, setting: int, state: State) -> tuple[Tensor, State]:
        """Return the outputs for the next ``x (B, n, C)``, and what the convolution keeps."""
        seen, state = self.depthwise.step(x.mT, state)
        return self._added(x, seen, setting), state

    def _added(self, x: Tensor, seen: Tensor, setting: int) -> Tensor:
        h = self.norm(seen.mT, setting)
        branch: Tensor = self.contract(F.gelu(self.expand(h)))
        return x + self.gamma * branch


class ConvNeXtStack(nn.ModuleList):
    """Blocks one after the other, whole or in pieces."""

    def forward(self, x: Tensor, setting: int) -> Tensor:
        """Return what the blocks make of ``x (B, T, C)``."""
        for block in self:
            x = block(x, setting)
        return x

    def step(self, x: Tensor, setting: int, state: State) -> tuple[Tensor, State]:
        """Return the outputs for the next ``x (B, n, C)``, and what the blocks keep."""
        after = []
        for block, before in zip(self, state or (None,) * len(self), strict=True):
            x, now = block.step(x, setting, before)  # type: ignore[operator]  # a ConvNeXtBlock
            after.append(now)
        return x, tuple(after)


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
