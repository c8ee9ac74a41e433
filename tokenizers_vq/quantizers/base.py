"""What all quantizer heads share: sizes, checks, precision, state, and what a user calls."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, ShapeError, check_indices
from tokenizers_vq.quantizers.flat import check_weight, float32_island
from tokenizers_vq.quantizers.record import Recorded
from tokenizers_vq.types import Quantized

PATIENCE = 100  # training forwards without update() before a head that learns there says so


class Quantizer(Recorded):
    """A map from latents to discrete codes and back.

    There are two kinds. A ``RowQuantizer`` (rows.py) looks at each position by itself, and most
    heads are one. The tokens of a ``GridQuantizer`` (grid.py) depend on their place.

    Loss weights are plain float attributes (``entropy_weight``, ...): a training callback may
    change them at any step. Whoever sets one, it has to be finite and not negative.

    Args:
        dim: latent width D; None for the width of the codes.
        code_dim: width d in which codes live. Where it differs from ``dim``, learned linear maps
            lead there and back.
        codebook_sizes: number of codes in each of the K codebooks.

    Attributes:
        vocab_size: number of different codes per position, a Python int of any size.
        bits_per_position: its binary logarithm.
        generator: of the random depths of heads that drop stages or scales in training; None for
            torch's global one.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *index_grid(grid), K)

    Raises:
        ConfigError: a width or codebook size is not a whole number of at least 1, or a loss weight
            is not a finite number of at least 0.
    """

    conventions: tuple[str, ...] = ("code_dim", "codebook_sizes")
    on_grid = False  # True where a token depends on its place: no stage or group of another head
    additive = True  # False where the code of one index depends on those of other codebooks
    float32_buffers: tuple[str, ...] = ()  # keep their dtype when the module is cast
    generator: torch.Generator | None = None
    _anchor: Tensor  # knows dtype and device of a module without weights

    def __init__(self, dim: int | None, code_dim: int, codebook_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = code_dim if dim is None else dim
        self._check_sizes(
            {"dim": (self.dim,), "code_dim": (code_dim,), "codebook_size": codebook_sizes}
        )
        self.code_dim = code_dim
        self.codebook_sizes = tuple(codebook_sizes)
        self.num_codebooks = len(self.codebook_sizes)
        self.vocab_size = math.prod(self.codebook_sizes)
        self.bits_per_position = sum(math.log2(size) for size in self.codebook_sizes)
        same = self.dim == self.code_dim
        self.project_in = None if same else nn.Linear(self.dim, self.code_dim)
        self.project_out = None if same else nn.Linear(self.code_dim, self.dim)
        self.frozen = False
        self._forwards = 0
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; loss weights only to numbers that a loss can be weighted by."""
        if name.endswith(("_weight", "_weights")):
            check_weight(type(self).__name__, name, value)
        super().__setattr__(name, value)

    # What a head implements ---------------------------------------------------------------------

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize latents. Changes no state, in training or evaluation.

        Args:
            z: ``(B, *grid, D)``, floating point.
            mask: ``(B, *grid)`` bool, True at valid positions. Heads that look at whole grids
                refuse it.

        Returns:
            ``z_q`` in the dtype of ``z``, ``indices``, ``loss`` and ``terms``. A token whose
            squared length is not a finite float32 is quantized as if it were zero, left out of
            the losses and counted in ``terms["nonfinite"]``.

        Raises:
            ShapeError: ``z`` or ``mask`` has another shape or dtype.
        """
        raise NotImplementedError

    def encode(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the indices ``(B, *index_grid, K)`` int64 of ``z (B, *grid, D)``; -1 if masked.

        Raises:
            ShapeError: ``z`` or ``mask`` has another shape or dtype.
        """
        raise NotImplementedError

    def decode(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return the latents ``(B, *grid, D)`` of ``indices (B, *index_grid, K)``.

        ``grid`` is that of the latents, for heads whose indices lie on another one.

        In evaluation ``decode(encode(z))`` equals ``forward(z).z_q`` bit for bit (after the cast
        to the dtype of ``z``). The result has the dtype of the module. Indices are checked except
        in compiled and exported graphs.

        Raises:
            ShapeError: an index is outside its codebook, or the shape or dtype is another.
        """
        raise NotImplementedError

    def lookup(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return the code vectors ``(B, *index_grid, d)`` float32, before the map back to width D.

        Raises:
            ShapeError: an index is outside its codebook, or the shape or dtype is another.
        """
        raise NotImplementedError

    def learn(self, z: Tensor, indices: Tensor) -> None:
        """Change the state from one step's ``z`` and ``indices``, whose shapes fit.

        Called by ``update``, in training, without gradients or autocast.
        """

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The radices each codebook's index is made of, least significant first.

        An entropy coder learns more from the digits of an implicit codebook than from its indices.
        """
        return tuple((size,) for size in self.codebook_sizes)

    def index_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the grid of the indices of latents on ``grid``."""
        return grid

    def latent_grid(self, index_grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the grid of the latents whose indices lie on ``index_grid``.

        Raises:
            ShapeError: there is no such grid, or more than one.
        """
        return index_grid

    @property
    def has_state(self) -> bool:
        """Whether ``update`` does anything."""
        return False

    @property
    def learns_by_update(self) -> bool:
        """Whether the codebook starts or learns in ``update``: forgetting it is a mistake."""
        return False

    # What a user calls --------------------------------------------------------------------------

    def decode_soft(self, probs: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the expected latents ``(B, *grid, D)`` of ``probs (B, *grid, size)``.

        With several codebooks ``probs`` is a sequence, one per codebook. See ``quantizers.soft``.

        Raises:
            ShapeError: ``probs`` do not fit the codebooks.
            ConfigError: a codebook is too large, or codes depend on each other or their place.
        """
        from tokenizers_vq.quantizers.soft import expected_latents

        return expected_latents(self, probs).to(self._anchor.dtype)

    @torch.no_grad()
    def update(self, z: Tensor, indices: Tensor) -> None:
        """Let the codebook follow its data: once per optimizer step, on every rank.

        The only place where state changes. Does nothing in evaluation, after
        ``requires_grad_(False)``, and for heads without state. Positions with index -1 and tokens
        that are not finite are left out.

        Args:
            z: ``(B, *grid, D)``, what ``forward`` got.
            indices: ``(B, *index_grid, K)``, what it returned.

        Raises:
            ShapeError: the shapes do not fit.
        """
        self._forwards = 0
        if not (self.training and self.has_state) or self.frozen:
            return
        self._check(z, None)
        check_indices(indices, self.codebook_sizes, "update")
        expected = (z.shape[0], *self.index_grid(tuple(z.shape[1:-1])))
        if tuple(indices.shape[:-1]) != expected:
            raise ShapeError(
                f"update: expected indices of shape {(*expected, self.num_codebooks)}; "
                f"got {tuple(indices.shape)}. Pass the z and the indices of the same forward."
            )
        with float32_island(z.device):
            self.learn(z.detach(), indices)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze or unfreeze parameters and state alike."""
        for part in self.modules():
            if isinstance(part, Quantizer):
                part.frozen = not requires_grad
        return super().requires_grad_(requires_grad)

    def complete(self, indices: Tensor) -> Tensor:
        """Return ``indices`` with all K columns; heads that decode a prefix fill with -1."""
        return indices

    def extra_repr(self) -> str:
        """Say what matters in one line."""
        return f"dim={self.dim}, code_dim={self.code_dim}, bits={self.bits_per_position:.2f}"

    # ---------------------------------------------------------------------------------------------

    def _check_sizes(self, given: dict[str, tuple[int, ...]]) -> None:
        for what, values in given.items():
            for value in values:
                if not isinstance(value, int) or value < 1:
                    raise ConfigError(
                        f"{type(self).__name__}: expected a {what} of at least 1; got {value!r}. "
                        "Give a positive whole number."
                    )

    def _check(self, z: Tensor, mask: Tensor | None) -> None:
        name = type(self).__name__
        if z.ndim < 2 or z.shape[-1] != self.dim:
            raise ShapeError(
                f"{name}: expected z of shape (B, *grid, {self.dim}); got {tuple(z.shape)}. "
                "Channels go last; did you forget 'b d h w -> b h w d'?"
            )
        if not z.is_floating_point():
            raise ShapeError(
                f"{name}: expected z of a floating dtype; got {z.dtype}. Call .float()."
            )
        if mask is not None and (mask.shape != z.shape[:-1] or mask.dtype != torch.bool):
            raise ShapeError(
                f"{name}: expected a bool mask of shape {tuple(z.shape[:-1])}; got {mask.dtype} "
                f"{tuple(mask.shape)}. True marks the positions that count."
            )

    def _expect_update(self) -> None:
        if torch.compiler.is_compiling() or not (self.training and torch.is_grad_enabled()):
            return
        self._forwards += 1
        if self._forwards == PATIENCE and self.learns_by_update and not self.frozen:
            warnings.warn(
                f"{type(self).__name__}: {PATIENCE} training steps without update(); codebooks "
                "start from k-means, follow averages and restart only there. Call "
                "quantizer.update(z, out.indices) after optimizer.step().",
                stacklevel=3,
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the float32 statistics with the module, but never cast them."""
        exact = {name: getattr(self, name) for name in self.float32_buffers}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call] # torch leaves it untyped
        for name, before in exact.items():
            after = getattr(self, name)
            if after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        return self
