"""What heads share whose tokens depend on their place: they see whole grids, not rows."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ShapeError, check_indices
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import Flat, float32_island, is_finite, linear, zero_unless
from tokenizers_vq.types import Quantized

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class GridQuantizer(Quantizer):
    """A head on latents ``(B, *grid, d)`` whose tokens ``(B, L, K)`` stand for several positions.

    Subclasses implement ``token_count``, ``encode_grid``, ``decode_grid``, ``quantize_grid``,
    ``lookup_grid`` and where there is state ``update_grid``, all in float32. The ``out`` and
    ``indices`` of a ``Flat`` keep their grid here. A head cannot be told to leave positions out: a
    token that stands for several has no meaning without some of them.

    Raises:
        ShapeError: a mask is passed, or the grid has another rank or an axis without positions.
    """

    on_grid = True
    axes = 2  # of the latents' grid

    def token_count(self, grid: tuple[int, ...]) -> int:
        """Return the number L of tokens of latents on ``grid``."""
        raise NotImplementedError

    def encode_grid(self, u: Tensor) -> Tensor:
        """Return the indices ``(B, L, K)`` int64 of ``u (B, *grid, d)``."""
        raise NotImplementedError

    def decode_grid(self, indices: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return ``(B, *grid, d)`` float32 of ``indices (B, L, K)``."""
        raise NotImplementedError

    def lookup_grid(self, indices: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return the code vectors ``(B, L, d)`` float32 of ``indices (B, L, K)``."""
        raise NotImplementedError

    def quantize_grid(self, u: Tensor, valid: Tensor) -> Flat:
        """Return output, indices, loss and terms of ``u (B, *grid, d)``.

        ``valid (B, *grid)`` is False where a latent was not finite and ``u`` has a zero instead.
        """
        raise NotImplementedError

    def update_grid(self, u: Tensor, indices: Tensor, valid: Tensor) -> None:
        """Change the state from ``u (B, *grid, d)``, ``indices (B, L, K)``, ``valid (B, *grid)``.

        B may be 0 on a rank that has to take part.
        """

    def index_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``(L,)``, the grid of the indices of latents on ``grid``."""
        return (self.token_count(grid),)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize latents; see ``Quantizer.forward``. A mask is refused.

        Raises:
            ShapeError: ``z`` has another shape, grid or dtype, or there is a mask.
        """
        self._check(z, mask)
        self._expect_update()
        with float32_island(z.device):
            u, valid = self._latents(z)
            made = self.quantize_grid(u, valid)
            out = linear(self.project_out, made.out).to(z.dtype)
            terms = made.terms | {"nonfinite": (~valid).sum().float()}
        return Quantized(out, made.indices, made.loss, terms)

    @torch.no_grad()
    def encode(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the indices ``(B, L, K)`` int64 of ``z (B, *grid, D)``. A mask is refused.

        Raises:
            ShapeError: ``z`` has another shape, grid or dtype, or there is a mask.
        """
        self._check(z, mask)
        with float32_island(z.device):
            return self.encode_grid(self._latents(z)[0])

    def decode(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return the latents ``(B, *grid, D)`` of ``indices (B, L, K)``; see ``Quantizer.decode``.

        Args:
            indices: int64; -1 adds nothing.
            grid: that of the latents; None for the one the head was made for.

        Raises:
            ShapeError: an index is outside its codebook, or their number is not that of the grid.
        """
        grid = self._grid_of(indices, grid, "decode")
        with float32_island(indices.device):
            out = linear(self.project_out, self.decode_grid(indices, grid))
        return out.to(self._anchor.dtype)

    def lookup(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return the code vectors ``(B, L, d)`` float32, each as its token holds it.

        Raises:
            ShapeError: an index is outside its codebook, or their number is not that of the grid.
        """
        grid = self._grid_of(indices, grid, "lookup")
        with float32_island(indices.device):
            return self.lookup_grid(indices, grid)

    def learn(self, z: Tensor, indices: Tensor) -> None:
        """Update from whole grids; what is not finite is zero and not valid."""
        u, valid = self._latents(z)
        self.update_grid(u, indices, valid)

    def _latents(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(B, *grid, d)`` float32, zero where not finite, and where it is finite."""
        rows = z.reshape(-1, self.dim).float()
        valid = is_finite(rows)
        u = zero_unless(valid, rows).reshape(z.shape)
        return linear(self.project_in, u), valid.reshape(z.shape[:-1])

    def _check(self, z: Tensor, mask: Tensor | None) -> None:
        super()._check(z, mask)
        name = type(self).__name__
        if mask is not None:
            raise ShapeError(
                f"{name}: expected no mask; got one of shape {tuple(mask.shape)}. "
                "A token of this head stands for several positions: crop the latents instead."
            )
        self._check_grid(tuple(z.shape[1:-1]), name)

    def _check_grid(self, grid: tuple[int, ...], where: str) -> None:
        if len(grid) != self.axes or 0 in grid:
            raise ShapeError(
                f"{where}: expected latents on a grid of rank {self.axes} with at least 1 "
                f"position per axis; got {grid}. Reshape them, or set the head's axes."
            )

    def _grid_of(
        self, indices: Tensor, grid: tuple[int, ...] | None, where: str
    ) -> tuple[int, ...]:
        if not torch.compiler.is_compiling():
            check_indices(indices, self.codebook_sizes, where)
        held = tuple(indices.shape[1:-1])
        if grid is None:
            return self.latent_grid(held)
        self._check_grid(grid, where)
        if indices.ndim != 3 or held != self.index_grid(grid):
            raise ShapeError(
                f"{where}: expected indices of shape (B, {self.token_count(grid)}, "
                f"{self.num_codebooks}) for latents on {grid}; got {tuple(indices.shape)}. "
                "Pass the grid of the latents they were made from."
            )
        return grid


class GridConv(nn.Module):
    """Convolution on ``(B, d, *grid)`` in float32, whatever dtype its weights have.

    Args:
        width: channels d, in and out.
        axes: rank of the grid, 1 to 3.
        kernel: an odd side; the borders see zeros.
        stride: 2 halves each axis, rounded up.
    """

    def __init__(self, width: int, axes: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        bound = (width * kernel**axes) ** -0.5
        shape = (width, width, *[kernel] * axes)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        self.axes, self.kernel, self.stride = axes, kernel, stride

    def forward(self, h: Tensor) -> Tensor:
        """Return ``(B, d, *ceil(grid / stride))`` float32."""
        conv = CONV[self.axes]
        weight, bias = self.weight.float(), self.bias.float()
        return conv(h, weight, bias, stride=self.stride, padding=self.kernel // 2)


def channels_first(x: Tensor) -> Tensor:
    """Return ``(B, d, *grid)`` contiguous of ``x (B, *grid, d)``."""
    return x.movedim(-1, 1).contiguous()


def channels_last(x: Tensor) -> Tensor:
    """Return ``(B, *grid, d)`` contiguous of ``x (B, d, *grid)``."""
    return x.movedim(1, -1).contiguous()


def positions(grid: tuple[int, ...]) -> int:
    """Return the number of positions of a grid."""
    return math.prod(grid)
