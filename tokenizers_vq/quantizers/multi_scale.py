"""A stack of quantizers from coarse to fine grids, each on what the ones before it left over.

Reference:
    Tian et al., Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale
    Prediction, 2024, https://arxiv.org/abs/2404.02905, section 3.2, algorithms 1 and 2;
    Li et al., ImageFolder, 2024, https://arxiv.org/abs/2410.01756, section 3 (scale dropout,
    factors of the scales);
    Han et al., Infinity, 2024, https://arxiv.org/abs/2412.04431, section 3.2 (binary codes).
    Differs from the first: with one head for all scales, its own loss and update see the tokens of
    all scales together; a single scale works.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import Flat
from tokenizers_vq.quantizers.grid import (
    GridConv,
    GridQuantizer,
    channels_first,
    channels_last,
    positions,
)
from tokenizers_vq.quantizers.lfq import flip_bits
from tokenizers_vq.quantizers.rows import RowQuantizer
from tokenizers_vq.quantizers.scales import (
    SMOOTH,
    TINY,
    check_ranges,
    checked_grids,
    checked_heads,
    inner_losses,
    masked_error,
    phi_of_scales,
    proportional,
    tokens_of,
)
from tokenizers_vq.quantizers.stages import draw_depth


class MultiScale(GridQuantizer):
    """Multi-scale residual quantization: tokens of whole grids, from coarse to fine.

    At each scale what is left over is averaged down to the scale's grid, quantized there, brought
    back up smoothly, passed through a convolution ``phi`` and subtracted. The output is the sum,
    with one straight-through estimator around it. The loss is the mean over scales of
    ``commitment_weight * mse(z, sg(sum so far)) + codebook_weight * mse(sum so far, sg(z))``, plus
    the inner head's own loss on its tokens: for the loss of VAR set the weights of a ``vq`` inside
    to 0. The search inside is the deterministic one, and its gradient estimator is not used; heads
    that add noise or draw codes in training are refused. Bits that a ``flip_rate`` inside gets
    wrong are left to the scales after, as in Infinity; indices and losses have the right ones.

    Args:
        dim: latent width D; None for ``code_dim``.
        inner: one head that all scales share, or one for each scale; all of width ``code_dim``.
        scales: grids from coarse to fine, each a side for all axes or one side per axis. The last
            is the base grid. On another latent grid a side s of scale i becomes
            ``s * latent side / base side``, rounded, halves up, at least 1.
        code_dim: width the inner heads work in; None for ``dim``.
        axes: rank of the grid, 1 to 3; None for that of ``scales`` or else 2.
        phi: number of convolutions, each shared by neighbouring scales; 0 for none. More than one
            per scale are as many as scales.
        phi_ratio: r in ``phi(h) = (1 - r) h + r conv(h)``.
        commitment_weight: pulls latents to the sums of codes; beta in the paper.
        codebook_weight: pulls the sums of codes, through ``phi``, to the latents.
        scale_factor: scale i works on its input divided by ``scale_factor**i``, for heads of fixed
            codes such as lfq.
        scale_dropout: probability that an item of a training batch stops after a random number of
            scales, ``min_scales`` to all. Dropped scales have index -1, no loss and no update.
        min_scales: fewest scales that dropout leaves.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, sum of the scales' positions, K of the
        inner head), row-major in each scale.

    Terms:
        ``commitment`` and ``codebook``, their means; commitment/i after scale i; inner/... of the
        inner head.

    Raises:
        ConfigError: scales that do not grow, another number or width of inner heads, inner heads
            with other codebooks than the first or with noise, or an option out of range.

    Example:
        >>> from tokenizers_vq.quantizers.vq import VectorQuantizer
        >>> q = MultiScale(dim=8, inner=[VectorQuantizer(8, codebook_size=16)], scales=[1, 2, 4])
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 21, 1])
    """

    conventions = (*GridQuantizer.conventions, "scales", "phi_ratio", "scale_factor")
    nested = True
    convolution: type[GridConv] = GridConv  # of phi

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int | None = None,
        *,
        inner: Quantizer | Sequence[Quantizer],
        scales: Sequence[int | Sequence[int]],
        code_dim: int | None = None,
        axes: int | None = None,
        phi: int = 4,
        phi_ratio: float = 0.5,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        scale_factor: float = 1.0,
        scale_dropout: float = 0.0,
        min_scales: int = 1,
    ) -> None:
        inner = [inner] if isinstance(inner, Quantizer) else inner
        grids = checked_grids(scales, axes)
        heads = checked_heads(inner, len(grids), dim if code_dim is None else code_dim)
        width = heads[0].dim
        super().__init__(dim, width, heads[0].codebook_sizes)
        self.scales = grids
        self.axes = len(grids[0])
        self.inner = nn.ModuleList(heads)
        self._shared = len(heads) == 1
        self.phi_ratio = phi_ratio
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.scale_factor = scale_factor
        self.scale_dropout = scale_dropout
        self.min_scales = min_scales
        check_ranges(
            phi=(phi, 0, 10**6),
            phi_ratio=(phi_ratio, 0, 1),
            scale_dropout=(scale_dropout, 0, 1),
            min_scales=(min_scales, 1, len(grids)),
            scale_factor=(scale_factor, TINY, math.inf),
        )
        convs = min(phi, len(grids))
        self.phi = nn.ModuleList(self.convolution(width, self.axes) for _ in range(convs))
        self._phi_of = phi_of_scales(len(grids), convs) if convs else []

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return the width of each inner head: that of the whole."""
        return dim

    # Grids --------------------------------------------------------------------------------------

    def scale_grids(self, grid: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the grids of the scales for latents on ``grid``; the last one is ``grid``.

        Reference: side s becomes ``max(1, floor(s * side / base + 1/2))`` in integer arithmetic.
        """
        return proportional(self.scales, grid)

    def token_count(self, grid: tuple[int, ...]) -> int:
        """Return the number of tokens of all scales."""
        return sum(self._counts(grid))

    def latent_grid(self, index_grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the base grid, the last of ``scales``.

        Raises:
            ShapeError: its latents have another number of indices.
        """
        return self._expect_base(index_grid, self.scales[-1])

    def _expect_base(self, index_grid: tuple[int, ...], base: tuple[int, ...]) -> tuple[int, ...]:
        if index_grid != self.index_grid(base):
            raise ShapeError(
                f"{type(self).__name__}: expected {self.token_count(base)} tokens, those of latents"
                f" on {base}; got {index_grid}. Say which grid the latents have: "
                "decode(indices, grid)."
            )
        return base

    def _counts(self, grid: tuple[int, ...]) -> list[int]:
        return [positions(sides) for sides in self.scale_grids(grid)]

    # The chain ----------------------------------------------------------------------------------

    def quantize_grid(self, u: Tensor, valid: Tensor) -> Flat:
        """Quantize scale by scale; see the class."""
        z, grid = channels_first(u), tuple(u.shape[1:-1])
        depth = self._depth(u)
        total = torch.zeros_like(z)
        columns, rows, commitments, codebooks = [], [], [], []
        for i in range(len(self.scales)):
            row = self._lower(z - total.detach(), i, grid)
            index = torch.where(depth[:, None, None] > i, self._search(row, i), -1)
            right = total + self._raise(index, i, grid)
            shown = self._shown(index, i)
            total = right if shown is index else total + self._raise(shown, i, grid)
            rows.append(row)
            columns.append(index)
            active = valid.flatten(1) & (depth[:, None] > i)
            commitments.append(masked_error(z, right.detach(), active))
            codebooks.append(masked_error(right, z.detach(), active))
        indices = torch.cat(columns, dim=1)
        used = (indices >= 0).any(-1) & self._whole(valid, grid)
        rows = [self._scaled(row, i) for i, row in enumerate(rows)]
        loss, terms = inner_losses(self._heads(), rows, columns, used)
        commitment, codebook = torch.stack(commitments).mean(), torch.stack(codebooks).mean()
        terms |= {"commitment": commitment.detach(), "codebook": codebook.detach()}
        terms |= {f"commitment/{i}": term.detach() for i, term in enumerate(commitments)}
        loss = loss + self.commitment_weight * commitment + self.codebook_weight * codebook
        return Flat(straight_through(u, channels_last(total)), indices, loss, terms)

    def encode_grid(self, u: Tensor) -> Tensor:
        """Return the indices ``(B, L, K)`` of all scales."""
        z, grid = channels_first(u), tuple(u.shape[1:-1])
        total, columns = torch.zeros_like(z), []
        for i in range(len(self.scales)):
            columns.append(self._search(self._lower(z - total, i, grid), i))
            total = total + self._raise(columns[-1], i, grid)
        return torch.cat(columns, dim=1)

    def decode_grid(self, indices: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return the sums ``(B, *grid, d)`` of all scales."""
        *_, total = self._sums(indices, grid)
        return channels_last(total)

    def lookup_grid(self, indices: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return the code vectors ``(B, L, d)`` with the factor of their scale, not yet raised."""
        columns = enumerate(torch.split(indices, self._counts(grid), dim=1))
        return torch.cat([self._codes(column, i) for i, column in columns], dim=1)

    def update_grid(self, u: Tensor, indices: Tensor, valid: Tensor) -> None:
        """Replay the chain on the stored indices and the codes as they are now.

        A head shared by all scales is updated once, with the tokens of all scales of an item side
        by side; heads of their own one after the other, as in ``Residual.code_update``.
        """
        z, grid = channels_first(u), tuple(u.shape[1:-1])
        skipped = (~valid).sum().float()
        use = (indices >= 0).any(-1) & self._whole(valid, grid)
        counts = self._counts(grid)
        total, rows, replaced = torch.zeros_like(z), [], False
        parts = zip(
            torch.split(indices, counts, dim=1), torch.split(use, counts, dim=1), strict=True
        )
        for i, (given, used) in enumerate(parts):
            row, column = self._lower(z - total, i, grid), given
            rows.append(row)
            if not self._shared:
                if replaced:
                    column = torch.where(given >= 0, self._search(row, i), -1)
                if self._head(i).update_rows(row[used], column[used], skipped):
                    replaced = True
                    column = torch.where(given >= 0, self._search(row, i), -1)
            total = total + self._raise(column, i, grid)
        if self._shared:
            self._head(0).update_rows(torch.cat(rows, dim=1)[use], indices[use], skipped)

    # Parts of the sum ---------------------------------------------------------------------------

    def prefix(self, indices: Tensor, count: int, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return ``indices (B, L, K)`` with -1 after the first ``count`` scales.

        Decoding them gives the coarse version that those scales make.

        Raises:
            ShapeError: ``count`` is not 1 to the number of scales, or the shapes do not fit.
        """
        grid = self._grid_of(indices, grid, "prefix")
        if not 1 <= count <= len(self.scales):
            raise ShapeError(
                f"prefix: expected 1 to {len(self.scales)} scales; got {count}. "
                "Ask for scales that exist."
            )
        kept = sum(self._counts(grid)[:count])
        return torch.where(torch.arange(indices.shape[1], device=indices.device)[:, None] < kept,
                           indices, -1)  # fmt: skip

    def next_scale_inputs(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return what a next-scale model reads: the sums so far, averaged to the next scale's grid.

        Position l of the result belongs to the l-th token after the first scale. The part of
        scale i depends on the indices of the scales before it only, so that a model can ask for it
        scale by scale, with -1 for what it has not made yet.

        Args:
            indices: ``(B, L, K)`` int64.
            grid: that of the latents; None for the base grid.

        Returns:
            ``(B, L - tokens of the first scale, d)`` float32.

        Reference:
            Tian et al., section 3.2, "e_k" of the transformer's input (teacher forcing).
        """
        grid = self._grid_of(indices, grid, "next_scale_inputs")
        sums = list(self._sums(indices, grid))[:-1]
        parts = [self._lower(total, i + 1, grid) for i, total in enumerate(sums)]
        nothing = self._anchor.new_zeros(indices.shape[0], 0, self.code_dim, dtype=torch.float32)
        return torch.cat([nothing, *parts], dim=1)

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The radices of the inner head's indices."""
        return self._head(0).digits

    @property
    def has_state(self) -> bool:
        """Whether ``update`` changes an inner head."""
        return any(head.has_state for head in self._heads())

    @property
    def learns_by_update(self) -> bool:
        """Whether an inner head learns in ``update`` only."""
        return any(head.learns_by_update for head in self._heads())

    # ---------------------------------------------------------------------------------------------

    def _heads(self) -> list[RowQuantizer]:
        return [head for head in self.inner if isinstance(head, RowQuantizer)]

    def _head(self, i: int) -> RowQuantizer:
        return self._heads()[0 if self._shared else i]

    def _sums(self, indices: Tensor, grid: tuple[int, ...]) -> Iterator[Tensor]:
        """Yield the sum ``(B, d, *grid)`` after each scale."""
        total = self._anchor.new_zeros(indices.shape[0], self.code_dim, *grid, dtype=torch.float32)
        for i, column in enumerate(torch.split(indices, self._counts(grid), dim=1)):
            total = total + self._raise(column, i, grid)
            yield total

    def _lower(self, x: Tensor, i: int, grid: tuple[int, ...]) -> Tensor:
        """Average ``x (B, d, *grid)`` to scale i; return its tokens ``(B, n, d)``."""
        small = x if self.scale_grids(grid)[i] == grid else self._shrunk(x, i, grid)
        return small.flatten(2).mT.contiguous()

    def _raise(self, index: Tensor, i: int, grid: tuple[int, ...]) -> Tensor:
        """Return what the tokens ``(B, n, K)`` of scale i add to the sum, ``(B, d, *grid)``."""
        sides = self.scale_grids(grid)[i]
        h = self._codes(index, i).mT.reshape(-1, self.code_dim, *sides).contiguous()
        if sides != grid:
            h = self._grown(h, i, grid)
        if len(self.phi):
            h = (1 - self.phi_ratio) * h + self.phi_ratio * self.phi[self._phi_of[i]](h)
        there = (index >= 0).flatten(1).any(1)  # a dropped scale adds no bias either
        return torch.where(there.reshape(-1, *[1] * (self.axes + 1)), h, 0.0)

    def _shrunk(self, x: Tensor, i: int, grid: tuple[int, ...]) -> Tensor:
        """Return the means of ``x (B, d, *grid)`` on the grid of scale i."""
        return F.interpolate(x, size=self.scale_grids(grid)[i], mode="area")

    def _grown(self, h: Tensor, i: int, grid: tuple[int, ...]) -> Tensor:
        """Return ``h (B, d, *grid of scale i)``, smoothly, as ``(B, d, *grid)``."""
        return F.interpolate(h, size=grid, mode=SMOOTH[self.axes])

    def _codes(self, index: Tensor, i: int) -> Tensor:
        rows = self._head(i).decode_rows(index.reshape(-1, self.num_codebooks))
        return rows.reshape(*index.shape[:-1], self.code_dim) * self.scale_factor**i

    @torch.no_grad()
    def _search(self, row: Tensor, i: int) -> Tensor:
        flat = self._scaled(row, i).reshape(-1, self.code_dim)
        return self._head(i).encode_rows(flat).reshape(*row.shape[:-1], self.num_codebooks)

    def _shown(self, index: Tensor, i: int) -> Tensor:
        """Return the tokens ``(B, n, K)`` that the sum goes on with: itself, or with wrong bits."""
        flat = index.reshape(-1, self.num_codebooks)
        shown = flip_bits(self._head(i), flat, tokens_of(index[..., 0] >= 0))
        return index if shown is flat else shown.reshape(index.shape)

    def _scaled(self, row: Tensor, i: int) -> Tensor:
        return row / self.scale_factor**i if self.scale_factor != 1 else row

    def _whole(self, valid: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return ``(B, L)``: tokens that no latent took part in that was not finite."""
        lost = (~valid).float()[:, None]
        return (
            torch.cat([self._lower(lost, i, grid)[..., 0] for i in range(len(self.scales))], 1) == 0
        )

    def _depth(self, u: Tensor) -> Tensor:
        """Return ``(B,)``: after how many scales each item stops."""
        valid = torch.ones(u.shape[0], 1, dtype=torch.bool, device=u.device)
        dropout = self.scale_dropout if self.training else 0.0
        return draw_depth(
            tokens_of(valid), self.min_scales, len(self.scales), dropout, self.generator
        )
