"""Heads that quantize each position by itself: masks, rows, and the way back to the grid.

A head is a codebook, a search and a gradient estimator on flat float32 rows ``(N, d)``. This file
turns latents ``(B, *grid, D)`` of any rank and dtype into such rows and back.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, check_indices
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import (
    Flat,
    Tokens,
    float32_island,
    is_finite,
    linear,
    zero_unless,
)
from tokenizers_vq.types import Quantized

# squared distances (N, size) to an index (N,) and the distribution (N, size) it comes from
Choose = Callable[[Tensor], tuple[Tensor, Tensor]]


class RowQuantizer(Quantizer):
    """A map from latents to discrete codes and back, position by position.

    Subclasses implement ``code_indices``, ``code_vectors``, and where they need them
    ``code_losses``, ``surrogate`` and ``code_update``, all on flat float32 rows.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, K); grid of any rank, also none.
    """

    nested = False  # True where code_vectors understands index -1: heads made of heads

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

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return up to ``count`` good choices ``(N, C, K)`` for ``u (N, d)``, the best one first.

        Heads without a search know one.
        """
        return self.code_indices(u)[:, None]

    def distances(self, u: Tensor) -> Tensor:
        """Return the squared distance ``(N, K)`` of ``u (N, d)`` to each code, as a search sees it.

        Raises:
            ConfigError: the head does not search a table.
        """
        raise ConfigError(
            f"soft_targets: expected a head that searches a table; got {type(self).__name__}. "
            "Use its indices."
        )

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
        return self.decode_exactly(indices).to(self._anchor.dtype)

    def decode_exactly(self, indices: Tensor) -> Tensor:
        """Return what ``decode`` does before it is cast: ``(B, *grid, D)`` float32."""
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
        return out.reshape(*indices.shape[:-1], self.dim)

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

    def learn(self, z: Tensor, indices: Tensor) -> None:
        """Update from the rows that have an index and are finite."""
        rows = z.reshape(-1, self.dim).float()
        index = indices.reshape(-1, self.num_codebooks)
        seen, finite = (index >= 0).any(-1), is_finite(rows)
        use = seen & finite
        self.update_rows(rows[use], index[use], (seen & ~finite).sum().float())

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

    def soft_rows(self, rows: Tensor, choose: Choose) -> tuple[Tensor, list[Tensor]]:
        """Return indices ``(N, K)`` of ``rows (N, D)`` and the distribution each is chosen from."""
        index, probs = choose(self.distances(linear(self.project_in, rows)))
        return index[:, None], [probs]

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


def row_parts(parts: Iterable[Quantizer], where: str) -> list[RowQuantizer]:
    """Return the parts of a head made of heads, if each quantizes every position by itself.

    Raises:
        ConfigError: a part is none, one without codes, or a head whose tokens depend on their
            place.
    """
    checked = []
    for part in parts:
        if not isinstance(part, Quantizer):
            raise ConfigError(
                f"{where}: expected quantizers; got {part!r:.80}. Give mappings with a name."
            )
        if not isinstance(part, RowQuantizer):
            raise ConfigError(
                f"{where}: expected parts that quantize each position by itself; got "
                f"{type(part).__name__}. Make that the outermost head."
            )
        if not part.codebook_sizes:
            raise ConfigError(
                f"{where}: expected parts with codes; got {type(part).__name__}, which is "
                "continuous. Use it alone."
            )
        checked.append(part)
    return checked
