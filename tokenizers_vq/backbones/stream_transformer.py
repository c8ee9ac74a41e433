"""Transformer layers whose positions look at a window around them, whole or in pieces.

Positions are absolute: position i sees position j exactly if ``-past <= j - i <= future``, however
the sequence is cut. So keys and values of the last ``past`` positions are all that is kept between
pieces, and running in pieces gives the numbers of the whole also where the window is full.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.streaming import State
from tokenizers_vq.backbones.transformer import MLP
from tokenizers_vq.errors import ConfigError, unknown_option

QK_EPS = 1e-6
BLOCK = 512  # queries that attend at once, so that memory grows with the length and not its square


@dataclass(frozen=True)
class Ways:
    """How the layers are made; the defaults are those of Mimi.

    Attributes:
        layers: how many.
        heads: attention heads, a divisor of the width.
        hidden: width inside the MLP.
        past: how many positions before its own a position sees.
        future: how many behind it.
        mlp: ``"gelu"`` or ``"swiglu"``.
        mlp_bias: biases in the MLP; attention has none.
        norm_bias: biases in the normalisations of layers.
        eps: what these add to the variance.
        qk_norm: normalise queries and keys per head, with gain and bias.
        rotary: channels of each head that are rotated, an even number; None for all.
        period: base of the rotations' wavelengths.
        layer_scale: where the learned gains of both branches start.
    """

    layers: int = 8
    heads: int = 8
    hidden: int = 2048
    past: int = 249
    future: int = 0
    mlp: str = "gelu"
    mlp_bias: bool = False
    norm_bias: bool = True
    eps: float = 1e-5
    qk_norm: bool = False
    rotary: int | None = None
    period: float = 10000.0
    layer_scale: float = 0.01


def ways_of(given: Mapping[str, Any] | None) -> Ways:
    """Return ``Ways`` with some fields replaced.

    Raises:
        ConfigError: a field does not exist, or a number is negative.
    """
    fields = dict(given or {})
    hints = get_type_hints(Ways)
    for field, value in fields.items():
        if field not in hints:
            raise unknown_option("backbone", "transformer", field, hints)
        if isinstance(value, int | float) and value < 0:
            raise ConfigError(
                f"transformer {field}: expected a number of 0 or more; got {value!r}. "
                "Correct the backbone config."
            )
    return replace(Ways(), **fields)


class WindowAttention(nn.Module):
    """Multi-head self-attention to a window, with rotary positions.

    Args:
        width: width W.
        ways: see ``Ways``.

    Shapes:
        x (B, N, W) -> (B, N, W)

    Raises:
        ConfigError: ``heads`` does not divide ``width``, or ``rotary`` is odd or wider than a head.

    Reference:
        Su et al., RoFormer, 2021, https://arxiv.org/abs/2104.09864, eq. 34 (channel c pairs with
        channel c + half); Henry et al., Query-Key Normalization, 2020,
        https://arxiv.org/abs/2010.04245 (its aim; here it is a normalisation with mean and gain).
    """

    inverse: Tensor

    def __init__(self, width: int, ways: Ways) -> None:
        super().__init__()
        if ways.heads < 1 or width % ways.heads:
            raise ConfigError(
                f"WindowAttention: expected heads that divide the width; got {ways.heads} heads "
                f"and width {width}. Correct the backbone config."
            )
        inner = width // ways.heads
        rotary = inner if ways.rotary is None else ways.rotary
        if rotary % 2 or rotary > inner:
            raise ConfigError(
                f"WindowAttention: expected rotary channels in pairs, at most {inner}; got "
                f"{rotary}. Correct the backbone config."
            )
        self.heads, self.past, self.future, self.rotary = ways.heads, ways.past, ways.future, rotary
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.q_norm = nn.LayerNorm(inner, eps=QK_EPS) if ways.qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(inner, eps=QK_EPS) if ways.qk_norm else nn.Identity()
        steps = torch.arange(0, rotary, 2, dtype=torch.float32) / max(rotary, 1)
        self.register_buffer("inverse", ways.period**-steps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended rows ``(B, N, W)``."""
        return self._attend(*self._heads(x, 0), ahead=0)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the attended rows ``(B, n, W)`` of the next positions, and what they leave.

        Raises:
            ConfigError: positions see the future.
        """
        if self.future:
            raise ConfigError(
                "stream: expected attention to the past only; got a window that sees "
                f"{self.future} positions ahead. Encode whole signals, or set future to 0."
            )
        start = 0 if state is None else state[0]
        q, k, v = self._heads(x, start)
        ahead = 0
        if state is not None:
            ahead = state[1].shape[2]
            k, v = torch.cat([state[1], k], dim=2), torch.cat([state[2], v], dim=2)
        first = max(0, k.shape[2] - self.past)
        after = (start + x.shape[1], k[:, :, first:], v[:, :, first:])
        return self._attend(q, k, v, ahead), after

    def _heads(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v ``(B, heads, N, W / heads)`` of positions from ``start`` on."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        places = torch.arange(start, start + x.shape[1], device=x.device, dtype=torch.float32)
        angles = places[:, None] * self.inverse.float()
        q, k = (
            self._rotated(part, angles).to(v.dtype) for part in (self.q_norm(q), self.k_norm(k))
        )
        return q, k, v

    def _rotated(self, part: Tensor, angles: Tensor) -> Tensor:
        turned, kept = part[..., : self.rotary].float(), part[..., self.rotary :].float()
        a, b = turned.chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([a * cos - b * sin, b * cos + a * sin, kept], dim=-1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, ahead: int) -> Tensor:
        """Return the rows ``(B, n, W)`` of queries that begin ``ahead`` keys behind the first."""
        rows = []
        for start in range(0, q.shape[2], BLOCK):
            block = q[:, :, start : start + BLOCK]
            first = max(0, ahead + start - self.past)
            end = min(k.shape[2], ahead + start + block.shape[2] + self.future)
            own = torch.arange(ahead + start, ahead + start + block.shape[2], device=q.device)
            away = torch.arange(first, end, device=q.device) - own[:, None]
            seen = (away >= -self.past) & (away <= self.future)
            rows.append(
                F.scaled_dot_product_attention(
                    block, k[:, :, first:end], v[:, :, first:end], attn_mask=seen
                )
            )
        attended: Tensor = self.proj(torch.cat(rows, dim=2).transpose(1, 2).flatten(2))
        return attended


class StreamLayer(nn.Module):
    """Pre-norm layer with gains: ``x += s1 attention(norm1(x))``, then ``x += s2 mlp(norm2(x))``.

    Args:
        width: width W.
        ways: see ``Ways``.

    Shapes:
        x (B, N, W) -> (B, N, W)

    Reference:
        Touvron et al., Going deeper with Image Transformers, 2021,
        https://arxiv.org/abs/2103.17239, section 2 (layer scale).
    """

    def __init__(self, width: int, ways: Ways) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=ways.eps, bias=ways.norm_bias)
        self.attn = WindowAttention(width, ways)
        self.scale1 = nn.Parameter(torch.full((width,), ways.layer_scale))
        self.norm2 = nn.LayerNorm(width, eps=ways.eps, bias=ways.norm_bias)
        self.mlp = MLP(width, ways.hidden, ways.mlp, ways.mlp_bias)
        self.scale2 = nn.Parameter(torch.full((width,), ways.layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Return rows ``(B, N, W)``."""
        return self._finished(x, self.attn(self.norm1(x)))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the next rows ``(B, n, W)``, and the attention's state."""
        y, state = self.attn.step(self.norm1(x), state)
        return self._finished(x, y), state

    def _finished(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.scale1 * attended
        out: Tensor = x + self.scale2 * self.mlp(self.norm2(x))
        return out


class StreamTransformer(nn.Module):
    """A stack of layers on signals, channels first; it can be run in pieces if it sees the past.

    Args:
        width: channels C.
        ways: see ``Ways``.

    Shapes:
        x (B, C, T) -> (B, C, T)

    Raises:
        ConfigError: see ``WindowAttention``.

    Reference:
        Defossez et al., Moshi: a speech-text foundation model for real-time dialogue, 2024,
        https://arxiv.org/abs/2410.00037, section 3.3.1.
    """

    def __init__(self, width: int, ways: Ways) -> None:
        super().__init__()
        self.layers = nn.ModuleList(StreamLayer(width, ways) for _ in range(ways.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, T)``."""
        rows = x.mT
        for layer in self.layers:
            rows = layer(rows)
        return rows.mT

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return ``(B, C, n)`` of the next positions, and the layers' states."""
        if not self.layers or (not x.shape[-1] and self._sees_past()):
            return x, state
        rows, after = x.mT, []
        for layer, before in zip(self.layers, state or (None,) * len(self.layers), strict=True):
            run: Any = layer
            rows, now = run.step(rows, before)
            after.append(now)
        return rows.mT, tuple(after)

    def _sees_past(self) -> bool:
        first: Any = self.layers[0]
        return not first.attn.future
