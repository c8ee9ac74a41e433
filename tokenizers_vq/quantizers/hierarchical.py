"""A hierarchy of heads over a causal video: slow and coarse tokens first, then faster and finer.

Reference:
    Zhou et al., HiTVideo: Hierarchical Tokenizers for Enhancing Text-to-Video Generation with
    Autoregressive Large Language Models, 2025, https://arxiv.org/abs/2503.11513, abstract: a causal
    video autoencoder with several layers of discrete codes, of which the higher compress more.
    Its code is not public. Ours are: what a level quantizes (what the levels above left over, the
    mean of each cell), how cells are cut in time, the causal convolution and the dropout of levels.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.grid import CONV, GridConv
from tokenizers_vq.quantizers.multi_scale import MultiScale

Stride = tuple[int, int, int]


class CausalGridConv(GridConv):
    """``GridConv`` whose first axis is time: a frame sees itself and the two before it."""

    def forward(self, h: Tensor) -> Tensor:
        """Return ``(B, d, *grid)`` float32."""
        side = self.kernel // 2
        h = F.pad(h, (*[side] * 2 * (self.axes - 1), self.kernel - 1, 0))
        return CONV[self.axes](h, self.weight.float(), self.bias.float())


class Hierarchical(MultiScale):
    """Multi-scale residual quantization of causal video latents, each level with its own strides.

    A level of strides ``(f_t, f_h, f_w)`` cuts time as a causal encoder does: the first latent
    frame alone, then cells of ``f_t``, the last of which may be shorter. What the levels before
    left over is averaged over each cell and area, quantized, repeated over the cell's frames,
    brought up smoothly in rows and columns, passed through a causal convolution and subtracted.
    The output is the sum; losses, gradients and dropout are those of ``MultiScale``.

    Nothing goes back in time beyond a cell of the slowest level: what happens in a frame changes no
    code, at any level, of the slowest cells before it. A picture is a video of one frame.

    Args:
        dim: latent width D; None for ``code_dim``.
        inner: one head that all levels share, or one for each; all of width ``code_dim``, with the
            same codebook sizes.
        strides: latent frames, rows and columns per code of each level, the coarsest first. Each
            divides those of the level before.
        base: latent frames, rows and columns for which ``decode`` needs no grid.
        code_dim: width the inner heads work in; None for ``dim``.
        phi: number of causal convolutions, each shared by neighbouring levels; 0 for none.
        commitment_weight: see ``MultiScale``.
        codebook_weight: see ``MultiScale``.
        scale_dropout: probability that an item of a training batch stops after a random number of
            levels. The codes of the others are -1: prefixes of levels decode.
        min_scales: fewest levels that dropout leaves.

    Shapes:
        z (B, t, h, w, D) -> z_q (B, t, h, w, D), indices (B, sum of the levels' positions, K of the
        inner head), level after level, time first in each.

    Terms:
        Those of ``MultiScale``.

    Raises:
        ConfigError: strides that do not divide each other, or what ``MultiScale`` refuses.

    Example:
        >>> from tokenizers_vq.quantizers.fsq import FSQ
        >>> levels = [[4, 4, 4], [2, 2, 2], [1, 1, 1]]
        >>> q = Hierarchical(3, inner=FSQ(3, levels=[4, 4, 4]), strides=levels, base=[5, 4, 4])
        >>> q(torch.zeros(1, 5, 4, 4, 3)).indices.shape
        torch.Size([1, 94, 1])
    """

    conventions = (*Quantizer.conventions, "strides", "phi_ratio")
    convolution = CausalGridConv

    def __init__(
        self,
        dim: int | None = None,
        *,
        inner: Quantizer | Sequence[Quantizer],
        strides: Sequence[Sequence[int]],
        base: Sequence[int],
        code_dim: int | None = None,
        phi: int = 0,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        scale_dropout: float = 0.0,
        min_scales: int = 1,
    ) -> None:
        self.strides = _checked(strides)
        super().__init__(
            dim,
            inner=inner,
            scales=_grids(self.strides, _three(base, "a base")),
            code_dim=code_dim,
            axes=3,
            phi=phi,
            commitment_weight=commitment_weight,
            codebook_weight=codebook_weight,
            scale_dropout=scale_dropout,
            min_scales=min_scales,
        )
        self.base = _three(base, "a base")

    def scale_grids(self, grid: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the grids of the levels for latents on ``grid``.

        ``1 + ceil((t - 1) / f_t)`` frames, ``ceil(h / f_h)`` rows and ``ceil(w / f_w)`` columns.
        """
        return _grids(self.strides, grid)

    def latent_grid(self, index_grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``base``.

        Raises:
            ShapeError: its latents have another number of indices.
        """
        self._expect_base(index_grid, self.base)
        return self.base

    def cells(self, grid: tuple[int, ...]) -> Tensor:
        """Return for each token of latents on ``grid`` its slowest cell, ``(L,)`` int64.

        A stable sort by it is an order in time: no token depends on frames after its cell.
        """
        slowest, parts = self.strides[0][0], []
        for (frames, rows, columns), (step, _, _) in zip(
            self.scale_grids(grid), self.strides, strict=True
        ):
            last = torch.arange(frames, device=self._anchor.device) * step  # of each cell
            parts.append((-(-last // slowest)).repeat_interleave(rows * columns))
        return torch.cat(parts)

    # ---------------------------------------------------------------------------------------------

    def _shrunk(self, x: Tensor, i: int, grid: tuple[int, ...]) -> Tensor:
        """Return the means ``(B, d, *grid of level i)`` over the cells of ``x (B, d, *grid)``."""
        (frames, rows, columns), step = self.scale_grids(grid)[i], self.strides[i][0]
        missing = (1 - grid[0]) % step
        padded = F.pad(x, (0, 0, 0, 0, step - 1, missing))
        cells = padded.reshape(*x.shape[:2], frames, step, *x.shape[3:])
        count = torch.full((frames, 1, 1), float(step), device=x.device)
        count[0] = 1
        count[-1] -= missing  # of one frame alone none is missing
        return F.adaptive_avg_pool3d(cells.sum(3) / count, (frames, rows, columns))

    def _grown(self, h: Tensor, i: int, grid: tuple[int, ...]) -> Tensor:
        """Return ``h (B, d, *grid of level i)`` on ``grid``; each cell's frames are alike."""
        if tuple(h.shape[3:]) != grid[1:]:
            frames = h.movedim(2, 1).flatten(0, 1)  # each alone
            frames = F.interpolate(frames, size=grid[1:], mode="bilinear")
            h = frames.reshape(h.shape[0], h.shape[2], h.shape[1], *grid[1:]).movedim(1, 2)
        step = self.strides[i][0]
        return h[:, :, (torch.arange(grid[0], device=h.device) + step - 1) // step]


def _grids(strides: Sequence[Stride], grid: Sequence[int]) -> list[tuple[int, ...]]:
    frames, rows, columns = grid
    return [(1 - (1 - frames) // t, -(-rows // h), -(-columns // w)) for t, h, w in strides]


def _three(values: Sequence[int], what: str) -> Stride:
    """Return three whole numbers above 0.

    Raises:
        ConfigError: they are not.
    """
    given = tuple(values)
    if len(given) != 3 or not all(isinstance(n, int) and n > 0 for n in given):
        raise ConfigError(
            f"Hierarchical: expected {what} of frames, rows and columns of at least 1; got "
            f"{list(given)}. Give three, e.g. [5, 8, 8]."
        )
    return given


def _checked(strides: Sequence[Sequence[int]]) -> list[Stride]:
    """Return the strides, if those of each level divide those of the level before.

    Raises:
        ConfigError: they do not.
    """
    levels = [_three(level, "strides") for level in strides]
    nested = all(a % b == 0 for x, y in pairwise(levels) for a, b in zip(x, y, strict=True))
    if not levels or not nested:
        raise ConfigError(
            "Hierarchical: expected strides of which each divides those of the level before; got "
            f"{[list(level) for level in levels]}. List them from coarse to fine, e.g. "
            "[[4, 4, 4], [2, 2, 2], [1, 1, 1]]."
        )
    return levels
