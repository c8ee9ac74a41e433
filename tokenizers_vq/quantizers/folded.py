"""Neighbouring positions folded into the channels of one token.

Reference:
    Lee et al., Autoregressive Image Generation using Residual Quantization, 2022,
    https://arxiv.org/abs/2203.01941, whose released code lets a code stand for a patch of latents
    (its shape of codes may be smaller than that of latents).
    Differs from that code: a grid that is no multiple is filled up with zeros, and linear maps
    lead from the patch to the inner head's width and back where they differ.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, ShapeError, check_indices
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import float32_island, is_finite, linear, zero_unless
from tokenizers_vq.quantizers.rows import row_parts
from tokenizers_vq.types import Quantized


class Folded(Quantizer):
    """A head on patches of positions: fewer tokens, each for several latents.

    A patch of ``fold`` positions per axis becomes one position with all of their channels, in
    row-major order, and the inner head quantizes that. So the number of tokens can be chosen apart
    from the stride of the backbone. Losses are those of the inner head.

    Args:
        dim: latent width D.
        inner: the head, in a config of width D unless it says another ``dim``. Where that is not
            the width of a patch, ``D * positions of a patch``, linear maps lead there and back.
        fold: positions of a patch; one number for all axes, or one per axis.
        axes: rank of the grid, where ``fold`` is one number.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *ceil(grid / fold), K of the inner head)

    Raises:
        ConfigError: there is not exactly one inner head, its tokens depend on their place, or
            ``fold`` is no whole number of at least 1.
        ShapeError: a mask is passed, or the grid has another rank than ``fold``.

    Example:
        >>> from tokenizers_vq.quantizers.vq import VectorQuantizer
        >>> q = Folded(dim=8, inner=VectorQuantizer(32, codebook_size=16), fold=2)
        >>> q(torch.zeros(2, 4, 6, 8)).indices.shape
        torch.Size([2, 2, 3, 1])
    """

    conventions = (*Quantizer.conventions, "fold")
    on_grid = True

    def __init__(
        self,
        dim: int,
        *,
        inner: Quantizer | Sequence[Quantizer],
        fold: int | Sequence[int] = 2,
        axes: int = 2,
    ) -> None:
        given = [inner] if isinstance(inner, Quantizer) else list(inner)
        if len(given) != 1:
            raise ConfigError(
                f"Folded: expected one inner quantizer; got {len(given)} of them. "
                "Give inner a mapping with a name."
            )
        (head,) = row_parts(given, "Folded")
        self._check_sizes({"axes": (axes,)})
        sides = tuple(fold) if isinstance(fold, Sequence) else (fold,) * axes
        self._check_sizes({"side of a patch": sides})
        super().__init__(dim, dim, head.codebook_sizes)
        self.fold = list(sides)
        self.inner = head
        self.code_dim = head.code_dim
        width = dim * torch.Size(sides).numel()
        same = width == head.dim
        self.patch_in = None if same else nn.Linear(width, head.dim)
        self.patch_out = None if same else nn.Linear(head.dim, width)

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return the width of an inner head that names none: that of a latent."""
        return dim

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize the patches of ``z``; see ``Quantizer.forward``. A mask is refused."""
        self._check(z, mask)
        with float32_island(z.device):
            patches, lost = self._patches(z)
            made = self.inner(patches)
            out = self._unfolded(made.z_q, tuple(z.shape[1:-1])).to(z.dtype)
        return Quantized(out, made.indices, made.loss, made.terms | {"nonfinite": lost})

    @torch.no_grad()
    def encode(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the indices ``(B, *ceil(grid / fold), K)`` of the patches. A mask is refused."""
        self._check(z, mask)
        with float32_island(z.device):
            return self.inner.encode(self._patches(z)[0])

    def decode(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return the latents ``(B, *grid, D)``; see ``Quantizer.decode``.

        Args:
            indices: ``(B, *ceil(grid / fold), K)`` int64; a patch with index -1 is zero before the
                linear map.
            grid: that of the latents; None for whole patches.
        """
        grid = self._grid_of(indices, grid, "decode")
        patches = self.inner.decode_exactly(indices)
        with float32_island(indices.device):
            return self._unfolded(patches, grid).to(self._anchor.dtype)

    def lookup(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return the inner head's code vectors of the patches."""
        self._grid_of(indices, grid, "lookup")
        return self.inner.lookup(indices)

    def learn(self, z: Tensor, indices: Tensor) -> None:
        """Update the inner head; a patch with a latent that is not finite is left out."""
        whole = self._folded(z.float())
        finite = is_finite(whole.reshape(-1, whole.shape[-1])).reshape(whole.shape[:-1])
        patches, _ = self._patches(z)
        self.inner.update(torch.where(finite[..., None], patches, torch.nan), indices)

    def index_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the grid of the patches, incomplete ones included."""
        return tuple(-(-side // fold) for side, fold in zip(grid, self.fold, strict=False))

    def latent_grid(self, index_grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the grid of whole patches."""
        return tuple(side * fold for side, fold in zip(index_grid, self.fold, strict=False))

    def complete(self, indices: Tensor) -> Tensor:
        """Return ``indices`` with all K columns, as the inner head fills them."""
        return self.inner.complete(indices)

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The radices of the inner head's indices."""
        return self.inner.digits

    @property
    def has_state(self) -> bool:
        """Whether ``update`` changes the inner head."""
        return self.inner.has_state

    @property
    def learns_by_update(self) -> bool:
        """Whether the inner head learns in ``update`` only."""
        return self.inner.learns_by_update

    # ---------------------------------------------------------------------------------------------

    def _patches(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(B, *index_grid, d)`` float32, zero where not finite, and how many are not."""
        rows = z.reshape(-1, self.dim).float()
        valid = is_finite(rows)
        folded = self._folded(zero_unless(valid, rows).reshape(z.shape))
        return linear(self.patch_in, folded), (~valid).sum().float()

    def _folded(self, z: Tensor) -> Tensor:
        """Return patches ``(B, *index_grid, fold * D)`` of ``z (B, *grid, D)``."""
        sides = self.index_grid(tuple(z.shape[1:-1]))
        full = z.new_zeros(z.shape[0], *self.latent_grid(sides), z.shape[-1])
        full[(slice(None), *(slice(side) for side in z.shape[1:-1]))] = z
        pairs = [n for side, fold in zip(sides, self.fold, strict=True) for n in (side, fold)]
        axes = len(sides)
        order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
        width = z.shape[-1] * torch.Size(self.fold).numel()
        cut = full.reshape(z.shape[0], *pairs, z.shape[-1]).permute(order)
        return cut.reshape(z.shape[0], *sides, width)

    def _unfolded(self, patches: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return ``(B, *grid, D)`` of what the inner head made of the patches."""
        whole = linear(self.patch_out, patches)
        sides, axes = self.index_grid(grid), len(grid)
        order = [0, *(n for i in range(axes) for n in (1 + i, 1 + axes + i)), 2 * axes + 1]
        cut = whole.reshape(whole.shape[0], *sides, *self.fold, self.dim).permute(order)
        full = cut.reshape(whole.shape[0], *self.latent_grid(sides), self.dim)
        return full[(slice(None), *(slice(side) for side in grid))].contiguous()

    def _check(self, z: Tensor, mask: Tensor | None) -> None:
        super()._check(z, mask)
        if mask is not None:
            raise ShapeError(
                f"Folded: expected no mask; got one of shape {tuple(mask.shape)}. "
                "A token of this head stands for several positions: crop the latents instead."
            )
        self._check_rank(tuple(z.shape[1:-1]), "Folded")

    def _check_rank(self, grid: tuple[int, ...], where: str) -> None:
        if len(grid) != len(self.fold) or 0 in grid:
            raise ShapeError(
                f"{where}: expected latents on a grid of rank {len(self.fold)} with at least 1 "
                f"position per axis; got {grid}. Reshape them, or set the head's axes."
            )

    def _grid_of(
        self, indices: Tensor, grid: tuple[int, ...] | None, where: str
    ) -> tuple[int, ...]:
        held = tuple(indices.shape[1:-1])
        if not torch.compiler.is_compiling():
            check_indices(self.complete(indices), self.codebook_sizes, where)
        grid = self.latent_grid(held) if grid is None else grid
        self._check_rank(grid, where)
        if held != self.index_grid(grid):
            raise ShapeError(
                f"{where}: expected indices on {self.index_grid(grid)} for latents on {grid}; got "
                f"{held}. Pass the grid of the latents they were made from."
            )
        return grid
