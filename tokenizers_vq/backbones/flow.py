"""Parts of rectified-flow transformers: modulated blocks, time, positions, guidance.

References:
    Bachmann et al., FlexTok: Resampling Images into 1D Token Sequences of Flexible Length, 2025,
    https://arxiv.org/abs/2502.13967; Peebles and Xie, Scalable Diffusion Models with Transformers,
    2022, https://arxiv.org/abs/2212.09748 (adaLN); Yang et al., Tensor Programs V, 2022,
    https://arxiv.org/abs/2203.03466 (attention scaled by one over the width of a head).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizers_vq.backbones.transformer import EPS, added
from tokenizers_vq.errors import ConfigError

PERIOD = 256.0  # of the slowest wave of an embedded time, with times scaled to 0..1000
TIME_SCALE = 1000.0
TEMPERATURE = 10000.0  # of sine-cosine positions
MOMENTUM = -0.5  # of the guidance direction from step to step
NORM_LIMIT = 2.5  # of the guidance direction
TINY = 1e-12
Sets = tuple[tuple[Tensor, ...], ...]  # of each set: what ``FlowBlock.sets_of`` returns


def plain_norm(x: Tensor) -> Tensor:
    """Return rows with zero mean and unit variance, computed in float32."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=EPS).type_as(x)


class FlowBlock(nn.Module):
    """Pre-norm block without biases, optionally modulated by a condition.

    ``x += g1 * attention(mod1(norm(x)))``, then ``x += g2 * mlp(mod2(norm(x)))`` with
    ``mod(h) = (1 + scale) h + shift``; without a condition the gates are 1 and ``mod`` changes
    nothing. Queries and keys have zero mean and unit variance per head, products are scaled by
    8 / (width of a head). The MLP is SwiGLU with two thirds of four times the width, or GELU.

    Args:
        width: width W.
        heads: attention heads.
        sets: sets of gates, shifts and scales, one per part of the sequence; 0 for no condition.
        gated: SwiGLU; False for GELU.
        qk_norm: normalise queries and keys.

    Shapes:
        x (B, N, W) -> (B, N, W)

    Raises:
        ConfigError: ``heads`` does not divide ``width``.

    Reference:
        Bachmann et al., 2025, https://arxiv.org/abs/2502.13967, section 3; Shazeer, 2020,
        https://arxiv.org/abs/2002.05202, eq. 6.
        Differs: modulations start near zero, not at zero, so that gradients reach all parts.
    """

    def __init__(
        self, width: int, heads: int, sets: int = 0, gated: bool = True, qk_norm: bool = True
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(
                f"FlowBlock: expected heads that divide the width; got {heads} heads and width "
                f"{width}. Correct the backbone config."
            )
        self.heads, self.sets, self.qk_norm = heads, sets, qk_norm
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width, bias=False) for _ in range(4))
        hidden = int(2 * (4 * width) / 3) if gated else 4 * width
        self.up = nn.Linear(width, hidden, bias=False)
        self.value = nn.Linear(width, hidden, bias=False) if gated else None
        self.down = nn.Linear(hidden, width, bias=False)
        self.modulation = nn.Linear(width, 6 * width * sets) if sets else None
        for part in (self.q, self.k, self.v, self.proj, self.up, self.value, self.down):
            if part is not None:
                nn.init.xavier_uniform_(part.weight)
        if self.modulation is not None:
            nn.init.trunc_normal_(self.modulation.weight, std=0.02)
            nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        sets: Sets = (),
        parts: Sequence[int] = (),
    ) -> Tensor:
        """Return rows ``(B, N, W)``.

        Args:
            x: ``(B, N, W)``.
            mask: bool, True where a row (axis -2) may look at another (axis -1).
            sets: what ``sets_of`` returned, for blocks with ``sets``.
            parts: how many rows each set modulates, in order; their sum is N.
        """
        if not sets:
            x = added(x, self.attend(plain_norm(x), mask))
            return added(x, self.mlp(plain_norm(x)))
        gate1, gate2, shift1, scale1, shift2, scale2 = zip(*sets, strict=True)
        h = self.attend(modulate(plain_norm(x), parts, scale1, shift1), mask)
        x = added(x, gate(h, parts, gate1))
        h = self.mlp(modulate(plain_norm(x), parts, scale2, shift2))
        return added(x, gate(h, parts, gate2))

    def sets_of(self, condition: Tensor) -> Sets:
        """Return two gates, a shift, a scale, a shift and a scale, ``(B, 1, W)``, for each set.

        Args:
            condition: ``(B, W)``; B of 1 does for a batch of any size.
        """
        if self.modulation is None:
            return ()
        numbers = self.modulation(F.silu(condition))[:, None]
        return tuple(one.chunk(6, dim=-1) for one in numbers.chunk(self.sets, dim=-1))

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return attended rows ``(B, N, W)``."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)) for part in (self.q, self.k, self.v))
        if self.qk_norm:
            q, k = plain_norm(q), plain_norm(k)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, heads, N, W / heads) each
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=8.0 / q.shape[-1])
        attended: Tensor = self.proj(h.transpose(1, 2).flatten(2))
        return attended

    def mlp(self, x: Tensor) -> Tensor:
        """Return rows ``(B, N, W)``, each a function of its own row alone."""
        h = self.up(x)
        if self.value is None:
            h = F.gelu(h)
        elif torch.is_grad_enabled():
            h = F.silu(h) * self.value(x)
        else:
            h = F.silu(h, inplace=True).mul_(self.value(x))  # nobody else reads it
        out: Tensor = self.down(h)
        return out


def modulate(
    x: Tensor, parts: Sequence[int], scales: Sequence[Tensor], shifts: Sequence[Tensor]
) -> Tensor:
    """Return ``(1 + scale) x + shift``, with a scale and a shift for each part of the rows.

    In the memory of ``x``, which nobody else may read, where no gradient needs it.
    """
    pieces = list(zip(torch.split(x, list(parts), dim=1), scales, shifts, strict=True))
    if torch.is_grad_enabled():
        return torch.cat([piece * (1.0 + scale) + shift for piece, scale, shift in pieces], dim=1)
    for piece, scale, shift in pieces:
        piece.mul_(1.0 + scale).add_(shift)
    return x


def gate(x: Tensor, parts: Sequence[int], gates: Sequence[Tensor]) -> Tensor:
    """Return ``gate * x`` with a gate for each part of the rows; memory as in ``modulate``."""
    pieces = list(zip(torch.split(x, list(parts), dim=1), gates, strict=True))
    if torch.is_grad_enabled():
        return torch.cat([piece * one for piece, one in pieces], dim=1)
    for piece, one in pieces:
        piece.mul_(one)
    return x


class PatchHead(nn.Module):
    """Rows to patches: norm, modulation by a condition, one linear map.

    Args:
        width: width W.
        out: numbers of a patch.
        modulated: whether there is a condition.

    Shapes:
        x (B, N, W), condition (B, W) -> (B, N, out)
    """

    def __init__(self, width: int, out: int, modulated: bool = True) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width) if modulated else None
        self.proj = nn.Linear(width, out)
        for part in (self.modulation, self.proj):
            if part is not None:
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return patches ``(B, N, out)``."""
        h = plain_norm(x)
        if self.modulation is not None and condition is not None:
            shift, scale = self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1)
            h = modulate(h, h.shape[1:2], [scale], [shift])
        out: Tensor = self.proj(h)
        return out


class TimeEmbedding(nn.Module):
    """Embeds times 0..1: waves, then two layers.

    Args:
        width: width W of the embedding.
        waves: numbers in between, cosines first.

    Shapes:
        t (B,) -> (B, W)
    """

    def __init__(self, width: int, waves: int = 256) -> None:
        super().__init__()
        self.waves = waves
        self.mlp = nn.Sequential(nn.Linear(waves, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Return embeddings ``(B, W)``."""
        waves = time_waves(t, self.waves).to(next(self.parameters()).dtype)
        embedded: Tensor = self.mlp(waves)
        return embedded


def time_waves(t: Tensor, count: int) -> Tensor:
    """Return cosines, then sines, ``(B, count)`` of times ``(B,)`` in 0..1."""
    half = count // 2
    powers = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * (TIME_SCALE * torch.exp(-math.log(PERIOD) * powers))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def grid_waves(height: int, width: int, dim: int) -> Tensor:
    """Return sine-cosine positions ``(1, dim, height, width)``.

    Sines and cosines of the column take the first half of the channels, those of the row the rest.
    Places are counted column after column and laid out row after row, so that on a square grid the
    first half follows the row.

    Raises:
        ConfigError: ``dim`` is not a multiple of 4.
    """
    if dim % 4:
        raise ConfigError(
            f"grid_waves: expected a width in multiples of 4; got {dim}. Correct the backbone "
            "config."
        )
    place = torch.arange(height * width, dtype=torch.float32)
    speeds = TEMPERATURE ** -(torch.arange(dim // 4, dtype=torch.float32) / (dim // 4))
    first = (place / height).floor()[:, None] * speeds
    second = (place % height)[:, None] * speeds
    waves = torch.cat([first.sin(), first.cos(), second.sin(), second.cos()], dim=1)
    return waves.T.reshape(1, dim, height, width)


def to_patches(x: Tensor, side: int) -> Tensor:
    """Return patches ``(B, N, side * side * C)`` of ``(B, C, H, W)``; channels vary fastest."""
    batch, channels, height, width = x.shape
    rows, columns = height // side, width // side
    cells = x.reshape(batch, channels, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
    return cells.reshape(batch, rows * columns, side * side * channels)


def from_patches(patches: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """Undo ``to_patches``: ``(B, N, side * side * C)`` to ``(B, C, h * side, w * side)``."""
    batch, (rows, columns) = patches.shape[0], grid
    channels = patches.shape[2] // side**2
    cells = patches.reshape(batch, rows, columns, side, side, channels).permute(0, 5, 1, 3, 2, 4)
    return cells.reshape(batch, channels, rows * side, columns * side)


class Guidance:
    """Strengthens what a condition changes, step by step.

    Plain: ``u + scale (c - u)`` with c and u the predictions with and without the condition.
    Projected: the difference ``d <- (c - u) + momentum d`` is scaled down to a norm of at most 2.5,
    its part along c is left out, and ``c + (scale - 1) d`` is returned.

    Args:
        scale: 1 for no guidance.
        projected: which of the two.

    Reference:
        Ho and Salimans, Classifier-Free Diffusion Guidance, 2022,
        https://arxiv.org/abs/2207.12598, eq. 6; Sadat et al., Eliminating Oversaturation and
        Artifacts of High Guidance Scales in Diffusion Models, 2024,
        https://arxiv.org/abs/2410.02416, algorithm 1.
    """

    def __init__(self, scale: float, projected: bool) -> None:
        self.scale, self.projected = scale, projected
        self.average: Tensor | None = None

    def __call__(self, with_it: Tensor, without: Tensor) -> Tensor:
        """Return the guided prediction ``(B, C, H, W)``."""
        if not self.projected:
            return without + self.scale * (with_it - without)
        change = with_it - without
        if self.average is not None:
            change = change + MOMENTUM * self.average
        self.average = change
        d, c = change.double().flatten(1), with_it.double().flatten(1)
        d = d * (NORM_LIMIT / d.norm(dim=1, keepdim=True).clamp(min=TINY)).clamp(max=1.0)
        along = F.normalize(c, dim=1)
        d = d - (d * along).sum(dim=1, keepdim=True) * along
        guided: Tensor = with_it + (self.scale - 1) * d.view(with_it.shape).to(with_it.dtype)
        return guided


def prefix_causal(before: int, after: int) -> Tensor:
    """Return a mask ``(n, n)`` bool: rows see the first ``before``, the rest also those up to it.

    The first rows see only each other; row ``before + j`` sees them and rows up to itself.
    """
    total = before + after
    row = torch.arange(total)
    return (row[None] < before) | (row[None] <= row[:, None])
