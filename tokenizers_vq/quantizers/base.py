"""What all quantizer heads share: shapes, masks, precision, projections.

A head is a codebook, a search and a gradient estimator on flat float32 rows ``(N, d)``. This file
turns latents ``(B, *grid, D)`` of any rank and dtype into such rows and back.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, ShapeError, check_indices
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.quantizers.flat import (
    Flat,
    Tokens,
    float32_island,
    is_finite,
    linear,
    zero_unless,
)
from tokenizers_vq.types import Quantized

PATIENCE = 100  # training forwards without update() before a head that learns there says so


class Quantizer(nn.Module):
    """A map from latents to discrete codes and back.

    Subclasses implement ``code_indices``, ``code_vectors``, and where they need them
    ``code_losses``, ``surrogate`` and ``code_update``, all on flat float32 rows.

    Loss weights are plain float attributes (``entropy_weight``, ...): a training callback may
    change them at any step.

    Args:
        dim: latent width D; None for the width of the codes.
        code_dim: width d in which codes live. Where it differs from ``dim``, learned linear maps
            lead there and back.
        codebook_sizes: number of codes in each of the K codebooks.

    Attributes:
        vocab_size: number of different codes per position, a Python int of any size.
        bits_per_position: its binary logarithm.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, K); grid of any rank, also none.
        Heads with ``on_grid`` have indices (B, *index_grid(grid), K).

    Raises:
        ConfigError: a width or codebook size is not a whole number of at least 1.
    """

    nested = False  # True where code_vectors understands index -1: heads made of heads
    on_grid = False  # True where a token depends on its place: no stage or group of another head
    additive = True  # False where the code of one index depends on those of other codebooks
    float32_buffers: tuple[str, ...] = ()  # keep their dtype when the module is cast
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

    # What a head implements, on flat float32 rows -----------------------------------------------

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` int64 of the rows ``u (N, d)``."""
        raise NotImplementedError

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` float32 of ``indices (N, K)``."""
        raise NotImplementedError

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted loss ``()`` and its unweighted terms.

        Args:
            u: ``(N, d)`` float32, with gradient to the encoder.
            indices: ``(N, K)`` int64.
            codes: ``(N, d)`` float32, with gradient to the codebook where there is one to learn.
            valid: ``(N,)`` bool; other rows must not change the result.
        """
        return u.new_zeros(()), {}

    def surrogate(self, u: Tensor, codes: Tensor) -> Tensor:
        """Return the value of ``codes (N, d)`` with a gradient to ``u (N, d)``."""
        return straight_through(u, codes)

    def code_update(self, u: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Change the state from one step's rows; return whether the codebook was replaced.

        Args:
            u: ``(N, d)`` float32, finite; N may be 0 on a rank that has to take part.
            indices: ``(N, K)`` int64, none missing.
            skipped: ``()`` float32, rows of this rank left out because they were not finite.
        """
        return False

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The radices each codebook's index is made of, least significant first.

        An entropy coder learns more from the digits of an implicit codebook than from its indices.
        """
        return tuple((size,) for size in self.codebook_sizes)

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return up to ``count`` good choices ``(N, C, K)`` for ``u (N, d)``, the best one first.

        Heads without a search know one.
        """
        return self.code_indices(u)[:, None]

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

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize latents. Changes no state, in training or evaluation.

        Args:
            z: ``(B, *grid, D)``, floating point.
            mask: ``(B, *grid)`` bool, True at valid positions. Outputs, losses and indices are
                those of the valid positions alone; the others get zeros and index -1.

        Returns:
            ``z_q`` in the dtype of ``z``, ``indices``, ``loss`` and ``terms``. A token whose
            squared length is not a finite float32 is quantized as if it were zero, left out of
            the losses and counted in ``terms["nonfinite"]``.

        Raises:
            ShapeError: ``z`` or ``mask`` has another shape or dtype.
        """
        self._check(z, mask)
        self._expect_update()
        with float32_island(z.device):
            rows, tokens, place = self._rows(z, mask)
            flat = self.quantize_rows(rows, rows, tokens)
            lost = tokens.item.new_zeros(()) if mask is None else ~mask
            terms = flat.terms | {"nonfinite": self._count_lost(tokens, lost)}
        z_q = place(flat.out.to(z.dtype), 0)
        return Quantized(z_q, place(flat.indices, -1), flat.loss, terms)

    @torch.no_grad()
    def encode(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the indices ``(B, *grid, K)`` int64 of ``z (B, *grid, D)``; -1 where masked.

        Raises:
            ShapeError: ``z`` or ``mask`` has another shape or dtype.
        """
        self._check(z, mask)
        with float32_island(z.device):
            rows, _, place = self._rows(z, mask)
            return place(self.encode_rows(rows), -1)

    def decode(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return the latents ``(B, *grid, D)`` of ``indices (B, *grid, K)``; zeros at index -1.

        ``grid`` is that of the latents, for heads whose indices lie on another one.

        In evaluation ``decode(encode(z))`` equals ``forward(z).z_q`` bit for bit (after the cast
        to the dtype of ``z``). The result has the dtype of the module. Indices are checked except
        in compiled and exported graphs.

        Raises:
            ShapeError: an index is outside its codebook, or the shape or dtype is another.
        """
        indices = self.complete(indices)
        if not torch.compiler.is_compiling():
            check_indices(indices, self.codebook_sizes, "decode")
        rows = indices.reshape(-1, self.num_codebooks)
        present = (rows >= 0).any(-1)
        with float32_island(indices.device):
            if torch.compiler.is_compiling() or bool(present.all()):
                out = self.decode_rows(rows)
            else:  # the same rows as in forward: a matrix product may round by their number
                out = self._anchor.new_zeros(rows.shape[0], self.dim, dtype=torch.float32)
                out[present] = self.decode_rows(rows[present])
        return out.to(self._anchor.dtype).reshape(*indices.shape[:-1], self.dim)

    def decode_soft(self, probs: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the expected latents ``(B, *grid, D)`` of ``probs (B, *grid, size)``.

        With several codebooks ``probs`` is a sequence, one per codebook. See ``quantizers.soft``.

        Raises:
            ShapeError: ``probs`` do not fit the codebooks.
            ConfigError: a codebook is too large, or codes depend on each other or their place.
        """
        from tokenizers_vq.quantizers.soft import expected_latents

        return expected_latents(self, probs).to(self._anchor.dtype)

    def lookup(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return the code vectors ``(B, *grid, d)`` float32, before the map back to width D.

        ``grid`` is that of the latents, for heads whose indices lie on another one.

        Raises:
            ShapeError: an index is outside its codebook, or the shape or dtype is another.
        """
        indices = self.complete(indices)
        if not torch.compiler.is_compiling():
            check_indices(indices, self.codebook_sizes, "lookup")
        with float32_island(indices.device):
            codes = self._vectors(indices.reshape(-1, self.num_codebooks))
        return codes.reshape(*indices.shape[:-1], self.code_dim)

    @torch.no_grad()
    def update(self, z: Tensor, indices: Tensor) -> None:
        """Let the codebook follow its data: once per optimizer step, on every rank.

        The only place where state changes. Does nothing in evaluation, after
        ``requires_grad_(False)``, and for heads without state. Positions with index -1 and tokens
        that are not finite are left out.

        Args:
            z: ``(B, *grid, D)``, what ``forward`` got.
            indices: ``(B, *grid, K)``, what it returned.

        Raises:
            ShapeError: the shapes do not fit.
        """
        self._forwards = 0
        if not (self.training and self.has_state) or self.frozen:
            return
        self._check(z, None)
        check_indices(indices, self.codebook_sizes, "update")
        if indices.shape[:-1] != z.shape[:-1]:
            raise ShapeError(
                f"update: expected indices of shape {(*z.shape[:-1], self.num_codebooks)}; "
                f"got {tuple(indices.shape)}. Pass the z and the indices of the same forward."
            )
        with float32_island(z.device):
            rows = z.detach().reshape(-1, self.dim).float()
            index = indices.reshape(-1, self.num_codebooks)
            seen, finite = (index >= 0).any(-1), is_finite(rows)
            use = seen & finite
            self.update_rows(rows[use], index[use], (seen & ~finite).sum().float())

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

    # What heads made of heads call, on flat float32 rows of width D -----------------------------

    def quantize_rows(self, rows: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize ``rows (N, D)``: the losses see ``rows``, the output's gradient ``source``.

        Both have the same value. A residual stack passes a detached source: then the output's
        gradient reaches the maps to and from the code width, and no further.
        """
        u = linear(self.project_in, rows)
        flat = self.quantize(u, u if source is rows else linear(self.project_in, source), tokens)
        return Flat(linear(self.project_out, flat.out), flat.indices, flat.loss, flat.terms)

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Do the same for ``u (N, d)`` in the width of the codes."""
        with torch.no_grad():
            indices = self.code_indices(u)
        return self.settle(u, source, indices, tokens)

    def settle(self, u: Tensor, source: Tensor, indices: Tensor, tokens: Tokens) -> Flat:
        """Do the same with ``indices (N, K)`` that somebody chose.

        A head with a ``quantize`` of its own has to have this too if a beam may choose for it.
        """
        codes = self.code_vectors(indices)
        loss, terms = self.code_losses(u, indices, codes, tokens.valid)
        return Flat(self.surrogate(source, codes), indices, loss, terms)

    def encode_rows(self, rows: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of ``rows (N, D)``."""
        return self.code_indices(linear(self.project_in, rows))

    def decode_rows(self, indices: Tensor) -> Tensor:
        """Return the rows ``(N, D)`` of ``indices (N, K)``; zeros where all K are -1."""
        out = linear(self.project_out, self._vectors(indices))
        return zero_unless((indices >= 0).any(-1), out)

    def update_rows(self, rows: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Change the state from ``rows (N, D)``; return whether the codebook was replaced.

        Does nothing in evaluation or when frozen: a part of a head can be either on its own.
        """
        if self.frozen or not self.training:
            return False
        return self.code_update(linear(self.project_in, rows), indices, skipped)

    # ---------------------------------------------------------------------------------------------

    def _vectors(self, indices: Tensor) -> Tensor:
        if self.nested:
            return self.code_vectors(indices)
        codes = self.code_vectors(indices.clamp(min=0))
        return zero_unless((indices >= 0).all(-1), codes)

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

    def _rows(
        self, z: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tokens, Callable[[Tensor, int], Tensor]]:
        """Return flat float32 rows, what is known about them, and the way back to the grid."""
        grid = z.shape[:-1]
        rows = z.reshape(-1, self.dim).float()
        item = torch.arange(z.shape[0], device=z.device)
        item = item[:, None].expand(-1, math.prod(grid[1:])).reshape(-1)
        keep = None if mask is None else mask.reshape(-1)
        gather = keep is not None and not torch.compiler.is_compiling()
        if keep is not None and gather:
            rows, item = rows[keep], item[keep]
        valid = is_finite(rows)
        rows = zero_unless(valid, rows)
        if keep is not None and not gather:
            valid = valid & keep

        def place(values: Tensor, fill: int) -> Tensor:
            if keep is not None and gather:
                full = values.new_full((keep.shape[0], values.shape[1]), fill)
                full[keep] = values
                values = full
            elif keep is not None:
                values = torch.where(keep[:, None], values, fill)
            return values.reshape(*grid, values.shape[1])

        return rows, Tokens(valid, item, z.shape[0]), place

    def _count_lost(self, tokens: Tokens, masked: Tensor) -> Tensor:
        lost = (~tokens.valid).sum()
        if torch.compiler.is_compiling():  # a graph keeps masked rows, which are not lost
            lost = lost - masked.sum()
        return lost.float()

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


def refuse_on_grid(parts: Iterable[Quantizer], where: str) -> None:
    """Raise unless every part quantizes each position by itself.

    Raises:
        ConfigError: a part is none, or a head whose tokens depend on their place.
    """
    for part in parts:
        if not isinstance(part, Quantizer):
            raise ConfigError(
                f"{where}: expected quantizers; got {part!r:.80}. Give mappings with a name."
            )
        if part.on_grid:
            raise ConfigError(
                f"{where}: expected parts that quantize each position by itself; got "
                f"{type(part).__name__}. Make that the outermost head."
            )
