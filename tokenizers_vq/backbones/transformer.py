"""Transformer building blocks that encoders and decoders share."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError

EPS = 1e-5
MLPS = ("gelu", "swiglu")
Past = tuple[Tensor, Tensor] | None  # keys and values (B, heads, N, W / heads) of earlier rows


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values.

    ``y = P concat_h softmax(scale q_h k_h^T) v_h``; the rows of ``qkv`` are all of q, then all of
    k, then all of v, each head after head.

    Args:
        width: width W.
        heads: number of heads, a divisor of the width.
        bias: biases in both projections.
        qk_norm: give queries and keys of each head zero mean and unit variance.
        scale: of the products; None for one over the root of the width of a head.

    Shapes:
        x (B, N, W) -> (B, N, W)

    Raises:
        ConfigError: ``heads`` does not divide ``width``.

    Reference:
        Vaswani et al., Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762, eq. 1.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        bias: bool = True,
        qk_norm: bool = False,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(
                f"Attention: expected heads that divide the width; got {heads} heads and width "
                f"{width}. Correct the backbone config."
            )
        self.heads = heads
        self.qk_norm = qk_norm
        self.scale = scale
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, mask: Tensor | None = None, keep: slice | None = None) -> Tensor:
        """Return the attended rows ``(B, N, W)``.

        Args:
            x: ``(B, N, W)``.
            mask: bool, True where a row (axis -2) may look at another (axis -1); it broadcasts to
                ``(B, heads, N, N)``. Every row needs one to look at.
            keep: which rows come out; all look at all. None for all.
        """
        q, k, v = self._parts(x, keep)  # (B, heads, N, W / heads) each
        if keep is not None and mask is not None and mask.shape[-2] > 1:
            mask = mask[..., keep, :]
        if self.qk_norm:
            q, k = (F.layer_norm(part, part.shape[-1:], eps=EPS) for part in (q, k))
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        attended: Tensor = self.proj(h.transpose(1, 2).flatten(2))
        return attended

    def step(self, x: Tensor, past: Past, mask: Tensor | None) -> tuple[Tensor, Past]:
        """Return the attended rows ``(B, N, W)``, and the keys and values of all rows so far.

        Args:
            x: the next rows ``(B, N, W)``; they look at the rows before them, too.
            past: what came back for those before; None for none.
            mask: as for ``forward``, with columns for the rows before, then those of ``x``.
        """
        q, k, v = self._parts(x, None)
        if self.qk_norm:
            q, k = (F.layer_norm(part, part.shape[-1:], eps=EPS) for part in (q, k))
        if past is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(past, (k, v), strict=True))
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        attended: Tensor = self.proj(h.transpose(1, 2).flatten(2))
        return attended, (k, v)

    def _parts(self, x: Tensor, keep: slice | None) -> tuple[Tensor, ...]:
        """Return queries of the rows to keep, and keys and values of all."""
        if keep is None:
            parts = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, W / heads)
            return tuple(parts.permute(2, 0, 3, 1, 4).unbind(0))
        batch, rows, width = x.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        b_q, b_kv = (None, None) if bias is None else (bias[:width], bias[width:])
        q = F.linear(x[:, keep], weight[:width], b_q)
        q = q.view(batch, -1, self.heads, width // self.heads)
        both = F.linear(x, weight[width:], b_kv).view(batch, rows, 2, self.heads, -1)
        return (q.transpose(1, 2), *both.permute(2, 0, 3, 1, 4).unbind(0))


class MLP(nn.Module):
    """Two layers with an activation between them.

    ``W2 gelu(W1 x)`` with the exact GELU, or ``W2 (silu(W1 x) * W3 x)``, W1 and W3 the halves of
    ``up``.

    Args:
        width: width W.
        hidden: width between the layers.
        kind: ``"gelu"`` or ``"swiglu"``.
        bias: biases in both layers.

    Shapes:
        x (..., W) -> (..., W)

    Raises:
        ConfigError: there is no such kind.

    Reference:
        Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, https://arxiv.org/abs/1606.08415;
        Shazeer, GLU Variants Improve Transformer, 2020, https://arxiv.org/abs/2002.05202, eq. 6.
    """

    def __init__(self, width: int, hidden: int, kind: str = "gelu", bias: bool = True) -> None:
        super().__init__()
        if kind not in MLPS:
            raise ConfigError(f"MLP: expected a kind of {', '.join(MLPS)}; got {kind!r}.")
        self.kind = kind
        self.up = nn.Linear(width, hidden * (2 if kind == "swiglu" else 1), bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return rows ``(..., W)``, each a function of its own row alone."""
        h = self.up(x)
        if self.kind == "swiglu":
            gate, value = h.chunk(2, dim=-1)
            h = F.silu(gate) * value
        elif torch.is_grad_enabled():
            h = F.gelu(h)
        else:
            h = torch.ops.aten.gelu_(h)  # nobody else reads it
        out: Tensor = self.down(h)
        return out


class Block(nn.Module):
    """Pre-norm block: ``x += attention(norm1(x))``, then ``x += mlp(norm2(x))``.

    Args:
        width: width W.
        heads: attention heads.
        hidden: width inside the MLP; None for four times the width.
        mlp: ``"gelu"`` or ``"swiglu"``.
        bias: biases in all four projections.
        affine: learn gains and biases in the normalisations.
        qk_norm: see ``Attention``.
        scale: see ``Attention``.

    Shapes:
        x (B, N, W) -> (B, N, W)

    Raises:
        ConfigError: ``heads`` does not divide ``width``, or there is no such MLP.

    Reference:
        Xiong et al., On Layer Normalization in the Transformer Architecture, 2020,
        https://arxiv.org/abs/2002.04745, table 1 (pre-LN).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int | None = None,
        mlp: str = "gelu",
        bias: bool = True,
        affine: bool = True,
        qk_norm: bool = False,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS, elementwise_affine=affine)
        self.attn = Attention(width, heads, bias, qk_norm, scale)
        self.norm2 = nn.LayerNorm(width, eps=EPS, elementwise_affine=affine)
        self.mlp = MLP(width, hidden or 4 * width, mlp, bias)

    def forward(self, x: Tensor, mask: Tensor | None = None, keep: slice | None = None) -> Tensor:
        """Return rows ``(B, N, W)``; ``mask`` and ``keep`` as for ``Attention``."""
        attended = self.attn(self.norm1(x), mask, keep)
        x = added(x if keep is None else x[:, keep], attended)
        return added(x, self.mlp(self.norm2(x)))

    def step(self, x: Tensor, past: Past, mask: Tensor | None) -> tuple[Tensor, Past]:
        """Return the next rows ``(B, N, W)`` and what is kept of all; see ``Attention.step``."""
        attended, past = self.attn.step(self.norm1(x), past, mask)
        x = added(x, attended)
        return added(x, self.mlp(self.norm2(x))), past


def added(x: Tensor, change: Tensor) -> Tensor:
    """Return ``x + change``, in the memory of ``change``, which nobody else reads, if it can be."""
    if torch.is_grad_enabled() or change.dtype != x.dtype:
        return x + change
    return change.add_(x)


class Transformer(nn.Module):
    """A norm, a stack of blocks, a norm.

    Args:
        width: width W.
        layers: number of blocks.
        heads: attention heads of each.
        hidden: width inside their MLPs; None for four times the width.

    Shapes:
        x (B, N, W) -> (B, N, W)

    Reference:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
        2021, https://arxiv.org/abs/2103.00020 (its vision transformer, with the first norm).
    """

    def __init__(self, width: int, layers: int, heads: int, hidden: int | None = None) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(width, eps=EPS)
        self.blocks = nn.ModuleList([Block(width, heads, hidden) for _ in range(layers)])
        self.norm_out = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor, mask: Tensor | None = None, keep: slice | None = None) -> Tensor:
        """Return rows ``(B, N, W)``; ``mask`` and ``keep`` as for ``Attention``."""
        out: Tensor = self.norm_out(run(self.blocks, self.norm_in(x), mask, keep))
        return out

    def step(
        self, x: Tensor, past: tuple[Past, ...] | None, mask: Tensor | None
    ) -> tuple[Tensor, tuple[Past, ...]]:
        """Return the next rows ``(B, N, W)`` and what each block keeps; see ``Attention.step``."""
        h, after = self.norm_in(x), []
        for block, before in zip(self.blocks, past or (None,) * len(self.blocks), strict=True):
            one: Any = block
            h, now = one.step(h, before, mask)
            after.append(now)
        return self.norm_out(h), tuple(after)


def run(
    blocks: nn.ModuleList, h: Tensor, mask: Tensor | None = None, keep: slice | None = None
) -> Tensor:
    """Return rows ``(B, N, W)`` behind a stack of blocks.

    Args:
        blocks: of ``Block``, at least one.
        h: ``(B, N, W)``.
        mask: as for ``Attention``.
        keep: the rows that are wanted; the last block does without the others, which nobody reads.
    """
    last = len(blocks) - 1
    for i, block in enumerate(blocks):
        h = block(h, mask, keep if i == last else None)
    return h


def patchify(x: Tensor, patch: int) -> Tensor:
    """Cut pictures into squares, each a row of channels, then rows, then columns.

    Args:
        x: ``(B, C, H, W)``, H and W multiples of ``patch``.
        patch: side of a square.

    Returns:
        ``(B, H / patch, W / patch, C * patch**2)``.
    """
    batch, channels, height, width = x.shape
    grid = (height // patch, width // patch)
    cells = x.reshape(batch, channels, grid[0], patch, grid[1], patch)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, *grid, channels * patch**2)


def unpatchify(rows: Tensor, patch: int) -> Tensor:
    """Undo ``patchify``: ``(B, h, w, C * patch**2)`` to ``(B, C, h * patch, w * patch)``."""
    batch, height, width, size = rows.shape
    channels = size // patch**2
    cells = rows.reshape(batch, height, width, channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(batch, channels, height * patch, width * patch)


def learned(*shape: int, std: float | None = None) -> nn.Parameter:
    """Return learned rows ``(*shape)``, normal around 0; ``std`` is 1 / sqrt(last size) if None."""
    return nn.Parameter(torch.randn(*shape) * (shape[-1] ** -0.5 if std is None else std))


def init_weights(module: nn.Module, std: float | None = None) -> None:
    """Start all linear layers and convolutions from a truncated normal, their biases from 0.

    Args:
        module: all its parts are started anew.
        std: of the normal. None for the usual .02, and in layers of fewer than 512 inputs for
            ``inputs ** -.5``, which keeps the variance: narrow stacks that start from .02 pass on
            so little that they learn the mean picture and stop.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d) and not part.weight.is_meta:
            inputs = part.weight[0].numel()
            usual = 0.02 if inputs >= 512 else inputs**-0.5
            nn.init.trunc_normal_(part.weight, std=usual if std is None else std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
