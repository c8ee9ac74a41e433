"""Tokens replaced by their neighbours, so that a decoder learns to live with a generator's errors.

Reference:
    Qiu et al., Robust Latent Matters: Boosting Image Generation with Sampling Error Synthesis,
    2025, https://arxiv.org/abs/2503.08354, section 3.2.
    Differs from the paper's text, not from the authors' code: the neighbours are those of the
    latent, where the head searches a table.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import Flat, Tokens, linear
from tokenizers_vq.quantizers.neighbours import (
    check_draw,
    check_neighbours,
    leaves,
    neighbours,
    neighbours_of_codes,
)
from tokenizers_vq.quantizers.rows import Choose
from tokenizers_vq.quantizers.wrapper import Wrapper


class Perturbed(Wrapper):
    """A head whose training output takes a wrong turn now and then.

    In the first ``floor(share * B)`` items of a training batch, each token with probability
    ``rate`` is given the value of a code drawn evenly from its ``count`` nearest ones, the nearest
    included; so ``rate * (1 - 1/count)`` of them change. This comes after the losses, which see
    the codes that were chosen, as do the returned indices and ``update``. The gradient to the
    latent is that of the chosen code. In evaluation it is the inner head.

    Neighbours: a head that searches a table has the codes nearest to the latent. A head whose
    codes are a grid (fsq, lfq, ecsq) has those that differ from the chosen one by one step in one
    digit. A stack or group of heads has the neighbours of the chosen code in each of its parts,
    every part drawing for itself. It goes around stacks, not into them: there, the stages that
    follow would learn to undo it.

    Args:
        dim: latent width D; None for the inner head's.
        inner: the head, and what its codes are.
        rate: probability alpha that a token is drawn anew.
        share: part beta of the batch that is touched at all; a batch of fewer than ``1 / share``
            items is not.
        count: number of neighbours delta.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, K) of the inner head

    Raises:
        ConfigError: ``rate`` or ``share`` is no probability, ``count`` is below 1, or the inner
            head's codes have no neighbours, have another width, or are perturbed already.

    Example:
        >>> from tokenizers_vq.quantizers.vq import VectorQuantizer
        >>> q = Perturbed(inner=VectorQuantizer(8, codebook_size=16), rate=0.5)
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        inner: Quantizer | Sequence[Quantizer],
        rate: float = 1.0,
        share: float = 0.1,
        count: int = 100,
    ) -> None:
        super().__init__(dim, inner)
        self.check_width(self.dim, "Leave its dim out.")
        refuse_perturbed([self.inner], "Perturbed")
        check_draw("Perturbed", {"rate": rate, "share": share}, count)
        for leaf in leaves(self.inner):
            check_neighbours("Perturbed", leaf)
        self.rate = rate
        self.share = share
        self.count = count

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize by the inner head, then disturb the output of some rows."""
        inner = self.inner
        touched = math.floor(self.share * tokens.batch + 1e-9)
        if not self.training or touched == 0 or self.rate == 0:
            return inner.quantize_rows(u, source, tokens)
        rows = linear(inner.project_in, u)
        origin = rows if source is u else linear(inner.project_in, source)
        flat = inner.quantize(rows, origin, tokens)
        hit = (tokens.item < touched) & (torch.rand(u.shape[0], device=u.device) < self.rate)
        out = linear(inner.project_out, self._disturbed(rows, flat, hit))
        return Flat(out, flat.indices, flat.loss, flat.terms)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of the inner head."""
        return self.inner.encode_rows(u)

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of the inner head at its latents' width."""
        return self.inner.decode_rows(indices)

    def soft_rows(self, rows: Tensor, choose: Choose) -> tuple[Tensor, list[Tensor]]:
        """Return indices and distributions of the inner head."""
        return self.inner.soft_rows(rows, choose)

    def code_update(self, u: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Update the inner head from the codes that were chosen."""
        return self.inner.update_rows(u, indices, skipped)

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the choices ``(N, C, K)`` of the inner head."""
        return self.inner.candidates(linear(self.inner.project_in, u), count)

    def _disturbed(self, u: Tensor, flat: Flat, hit: Tensor) -> Tensor:
        """Return ``flat.out (N, d)`` with the values of neighbours where ``hit (N,)``."""
        if torch.compiler.is_compiling():  # a graph has no rows whose number depends on data
            codes = self._neighbour_codes(u, flat.indices)
            return torch.where(hit[:, None], straight_through(flat.out, codes), flat.out)
        (rows,) = hit.nonzero(as_tuple=True)
        codes = self._neighbour_codes(u[rows], flat.indices[rows])
        return flat.out.index_copy(0, rows, straight_through(flat.out[rows], codes))

    @torch.no_grad()
    def _neighbour_codes(self, u: Tensor, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of neighbours of ``u (N, d)`` with ``indices (N, K)``."""
        parts = leaves(self.inner)
        if parts == [self.inner]:
            other = neighbours(self.inner, u, indices, self.count)
        else:
            other = neighbours_of_codes(parts, indices, self.count)
        return self.inner.code_vectors(other)


def refuse_perturbed(parts: Iterable[Quantizer], where: str) -> None:
    """Raise ``ConfigError`` if a part, or a part of a part, is perturbed."""
    if any(isinstance(inside, Perturbed) for part in parts for inside in part.modules()):
        raise ConfigError(
            f"{where}: expected parts that are not perturbed; got one that is. "
            "Perturb once, around the outermost stack."
        )
