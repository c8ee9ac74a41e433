"""The transformer of Whisper's encoder, and what speech tokenizers put into it.

Reference:
    Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022,
    https://arxiv.org/abs/2212.04356, section 2.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.transformer import MLP
from tokenizers_vq.errors import ConfigError

EPS = 1e-5
PERIOD = 10000.0  # of the slowest sinusoid, and base of the rotations
Turns = tuple[Tensor, Tensor]


class SpeechAttention(nn.Module):
    """Multi-head self-attention whose keys have no bias.

    Args:
        width: width W.
        heads: number of heads, a divisor of the width.
        memory: odd number of positions that a depthwise convolution of the values sees, which is
            added to what is attended, with the values themselves; 0 for none.

    Shapes:
        x (B, N, W) -> (B, N, W)

    Raises:
        ConfigError: ``heads`` does not divide ``width``, or ``memory`` is even.

    Reference:
        Gao et al., SAN-M: Memory Equipped Self-Attention for End-to-End Speech Recognition, 2020,
        https://arxiv.org/abs/2006.01713, section 2.3 (``memory``).
    """

    def __init__(self, width: int, heads: int, memory: int = 0) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(
                f"SpeechAttention: expected heads that divide the width; got {heads} heads and "
                f"width {width}. Correct the backbone config."
            )
        if memory < 0 or (memory and memory % 2 == 0):
            raise ConfigError(
                f"SpeechAttention: expected a memory of 0 or an odd number of positions; got "
                f"{memory}. Correct the backbone config."
            )
        self.heads = heads
        self.q, self.v, self.proj = (nn.Linear(width, width) for _ in range(3))
        self.k = nn.Linear(width, width, bias=False)
        self.memory = (
            nn.Conv1d(width, width, memory, padding=memory // 2, groups=width, bias=False)
            if memory
            else None
        )

    def forward(self, x: Tensor, mask: Tensor | None, turns: Turns | None) -> Tensor:
        """Return the attended rows ``(B, N, W)``.

        Args:
            x: ``(B, N, W)``.
            mask: bool, True where a row (axis -2) may look at another (axis -1); it broadcasts to
                ``(B, heads, N, N)``. None for everywhere.
            turns: cosines and sines ``(N, W / heads)`` of rotations; None for none.
        """
        v = self.v(x)
        q, k, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(x), self.k(x), v)
        )
        if turns is not None:
            q, k = rotated(q, turns).to(values.dtype), rotated(k, turns).to(values.dtype)
        h = F.scaled_dot_product_attention(q, k, values, attn_mask=mask)
        attended: Tensor = self.proj(h.transpose(1, 2).flatten(2))
        if self.memory is None:
            return attended
        remembered: Tensor = attended + self.memory(v.mT).mT + v
        return remembered


class SpeechLayer(nn.Module):
    """Pre-norm layer: ``x += attention(norm1(x))``, then ``x += mlp(norm2(x))``.

    Args:
        width: width W.
        heads: attention heads.
        hidden: width inside the MLP.
        memory: as in ``SpeechAttention``.
        eps: what the norm in front of attention adds to the variance.

    Shapes:
        x (B, N, W) -> (B, N, W)

    Raises:
        ConfigError: as ``SpeechAttention``.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, memory: int = 0, eps: float = EPS
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = SpeechAttention(width, heads, memory)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, hidden)

    def forward(self, x: Tensor, mask: Tensor | None, turns: Turns | None) -> Tensor:
        """Return rows ``(B, N, W)``; the arguments are those of ``SpeechAttention``."""
        x = x + self.attn(self.norm1(x), mask, turns)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class SpeechStack(nn.Module):
    """Positions, layers and a norm.

    Args:
        width: width W.
        heads: attention heads.
        hidden: width inside the MLPs.
        layers: how many.
        positions: rows of the table of sinusoids that is added in front; None to rotate queries
            and keys instead, without a limit.
        memory: as in ``SpeechAttention``.
        norm: whether there is one behind the layers.
        eps: as in ``SpeechLayer``.

    Shapes:
        x (B, N, W) -> (B, N, W), N at most ``positions``

    Raises:
        ConfigError: as ``SpeechAttention``, or a width of sinusoids is odd.
    """

    positions: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        layers: int,
        *,
        positions: int | None,
        memory: int = 0,
        norm: bool = True,
        eps: float = EPS,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SpeechLayer(width, heads, hidden, memory, eps) for _ in range(layers)
        )
        self.turned = width // heads if positions is None else 0  # channels of a head that turn
        if positions is not None:
            # in files, as networks were trained with their own rounding of the sinusoids
            self.register_buffer("positions", sinusoids(positions, width))
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return rows ``(B, N, W)``; ``mask`` as for ``SpeechAttention``."""
        out: Tensor = self.norm(self.run(self.placed(x), 0, len(self.layers), mask))
        return out

    def placed(self, x: Tensor) -> Tensor:
        """Return ``x (B, N, W)`` with its positions, unless queries and keys are rotated."""
        return x if self.turned else x + self.positions[: x.shape[1]].to(x.dtype)

    def run(self, x: Tensor, first: int, last: int, mask: Tensor | None) -> Tensor:
        """Return what the layers from ``first`` to before ``last`` make of rows ``(B, N, W)``."""
        turns = rotations(x.shape[1], self.turned, x.device) if self.turned else None
        for layer in self.layers[first:last]:
            x = layer(x, mask, turns)
        return x


def sinusoids(count: int, width: int) -> Tensor:
    """Return positions ``(count, width)``: sines of ``width / 2`` periods, then their cosines.

    Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, with the periods from 2 pi to 20000 pi.

    Raises:
        ConfigError: the width is odd.
    """
    if width % 2 or width < 4:
        raise ConfigError(
            f"sinusoids: expected an even width of at least 4; got {width}. Correct the backbone "
            "config."
        )
    rate = torch.exp(-math.log(PERIOD) / (width // 2 - 1) * torch.arange(width // 2))
    angle = torch.arange(count)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def rotations(count: int, width: int, device: torch.device) -> Turns:
    """Return cosines and sines ``(count, width)`` of the rotations of heads of ``width``.

    Su et al. 2021 (arXiv 2104.09864), equation 15; channel c pairs with channel c + width / 2.
    """
    steps = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    angle = torch.arange(count, device=device, dtype=torch.float32)[:, None] * PERIOD**-steps
    return angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)


def rotated(x: Tensor, turns: Turns) -> Tensor:
    """Return ``x (B, heads, N, width)`` float32, each pair of channels turned by its angle."""
    cosines, sines = turns
    x = x.float()
    low, high = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-high, low], dim=-1) * sines
