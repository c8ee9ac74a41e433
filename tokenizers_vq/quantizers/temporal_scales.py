"""A residual stack whose stages have rates of their own: slow codes first, faster ones after.

Reference:
    Siuzdak et al., SNAC: Multi-Scale Neural Audio Codec, 2024, https://arxiv.org/abs/2410.14411,
    section 2.1.
    Differs from it: sequences of any length have codes; the gradient is that of ``Residual``.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.rates import depth_first
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import Flat, mean_terms
from tokenizers_vq.quantizers.grid import channels_first, channels_last
from tokenizers_vq.quantizers.multi_scale import MultiScale
from tokenizers_vq.quantizers.scales import tokens_of
from tokenizers_vq.quantizers.stages import quantize_stage


class TemporalScales(MultiScale):
    """Multi-scale residual quantization of a sequence, with the mean of every few latents.

    At each scale what is left over is averaged over ``stride`` latents, quantized, repeated
    ``stride`` times and subtracted. The output is the sum, with one straight-through estimator
    around it; the maps of the heads to and from their codes learn through their own. The loss is
    the mean of the heads' own losses.

    Args:
        dim: latent width D; None for that of the heads.
        inner: one head that all scales share, or one for each; all of width ``dim``, with one
            codebook size.
        strides: latents per code of each scale, the largest first; each divides the ones before.
        scale_dropout: probability that an item of a training batch stops after a random number of
            scales. Dropped scales have index -1, no loss and no update.
        min_scales: fewest scales that dropout leaves.

    Shapes:
        z (B, T, D) -> z_q (B, T, D), indices (B, sum of the scales' lengths, K of the inner head),
        the codes of one scale after the other. A scale of stride s has T / s codes, or where T is
        no multiple of the largest stride about as many; see ``MultiScale.scale_grids``.

    Terms:
        Each term's mean over the scales, and term/i for scale i.

    Raises:
        ConfigError: strides that do not divide each other, another number or width of heads, heads
            with other codebooks than the first or with noise, or an option out of range.

    Example:
        >>> from tokenizers_vq.quantizers.factorized import FactorizedVQ
        >>> heads = [FactorizedVQ(8, codebook_size=16, code_dim=4) for _ in range(3)]
        >>> q = TemporalScales(8, inner=heads, strides=[4, 2, 1])
        >>> q(torch.zeros(2, 8, 8)).indices.shape
        torch.Size([2, 14, 1])
    """

    conventions = (*Quantizer.conventions, "strides")

    def __init__(
        self,
        dim: int | None = None,
        *,
        inner: Quantizer | Sequence[Quantizer],
        strides: Sequence[int],
        scale_dropout: float = 0.0,
        min_scales: int = 1,
    ) -> None:
        strides = _checked(strides)
        super().__init__(
            dim,
            inner=inner,
            scales=[strides[0] // stride for stride in strides],
            axes=1,
            phi=0,
            commitment_weight=0.0,
            codebook_weight=0.0,
            scale_dropout=scale_dropout,
            min_scales=min_scales,
        )
        self.strides = strides

    def scale_grids(self, grid: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the lengths of the scales for ``grid`` latents: T / s, rounded, at least 1."""
        (length,) = grid
        return [(max(1, (2 * length + s) // (2 * s)),) for s in self.strides]

    def latent_grid(self, index_grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the length of the sequence with so many indices, the longest of several.

        Raises:
            ShapeError: no sequence has that number.
        """
        (count,) = index_grid
        whole = self.strides[0] * count // sum(self.strides[0] // s for s in self.strides)
        near = range(max(1, whole - self.strides[0]), whole + 2 * self.strides[0] + 1)
        found = [length for length in near if self.token_count((length,)) == count]
        if not found:
            raise ShapeError(
                f"TemporalScales: expected as many indices as a sequence has; got {count} with "
                f"strides {self.strides}. Keep the indices of all scales together."
            )
        return (found[-1],)

    # Codes of several rates ---------------------------------------------------------------------

    def split(self, indices: Tensor) -> list[Tensor]:
        """Return ``indices (B, L, K)`` as one tensor ``(B, n, K)`` per scale, the slowest first.

        Raises:
            ShapeError: no sequence has L indices.
        """
        return list(torch.split(indices, self._lengths(indices), dim=1))

    def merge(self, scales: Sequence[Tensor]) -> Tensor:
        """Return the indices ``(B, L, K)`` of what ``split`` returns.

        Raises:
            ShapeError: the lengths are not those of one sequence.
        """
        indices = torch.cat(list(scales), dim=1)
        lengths = [scale.shape[1] for scale in scales]
        if self._lengths(indices) != lengths:
            raise ShapeError(
                f"merge: expected scales of {self._lengths(indices)} indices; got {lengths}. "
                "Give all scales of one sequence, the slowest first."
            )
        return indices

    def interleave(self, indices: Tensor) -> Tensor:
        """Return ``indices (B, L, K)`` in the order of a language model: depth first.

        Every code comes right before the faster codes of its time: with strides 4, 2, 1 the order
        is a, b1, c1, c2, b2, c3, c4 for every 4 latents.

        Raises:
            ShapeError: no sequence has L indices.
        """
        return indices[:, self._order(indices)]

    def deinterleave(self, indices: Tensor) -> Tensor:
        """Return ``indices (B, L, K)`` of what ``interleave`` returns.

        Raises:
            ShapeError: no sequence has L indices.
        """
        return indices[:, self._order(indices).argsort()]

    # The chain ----------------------------------------------------------------------------------

    def quantize_grid(self, u: Tensor, valid: Tensor) -> Flat:
        """Quantize scale by scale; see the class."""
        z, grid = channels_first(u), tuple(u.shape[1:-1])
        depth = self._depth(u)
        total = torch.zeros_like(z)
        whole = torch.split(self._whole(valid, grid), self._counts(grid), dim=1)
        flats = []
        for i, used in enumerate(whole):
            row = self._lower(z - total.detach(), i, grid)
            active = (depth[:, None] > i).expand(used.shape)
            rows = row.flatten(0, 1)
            flat = quantize_stage(self._head(i), rows, tokens_of(used & active), None)
            out = torch.where(active.reshape(-1, 1), flat.out, 0.0)
            total = total + self._grown(out.reshape(row.shape).mT.contiguous(), i, grid)
            indices = torch.where(active.reshape(-1, 1), flat.indices, -1)
            flats.append(replace(flat, indices=indices.reshape(*row.shape[:2], self.num_codebooks)))
        terms = mean_terms([flat.terms for flat in flats])
        for i, flat in enumerate(flats):
            terms |= {f"{name}/{i}": term for name, term in flat.terms.items()}
        loss = torch.stack([flat.loss for flat in flats]).mean()
        indices = torch.cat([flat.indices for flat in flats], dim=1)
        return Flat(channels_last(total) + (u - u.detach()), indices, loss, terms)

    # ---------------------------------------------------------------------------------------------

    def _grown(self, h: Tensor, i: int, grid: tuple[int, ...]) -> Tensor:
        """Return ``h (B, d, n)`` as ``(B, d, T)``, each for its share of the time."""
        return F.interpolate(h, size=grid, mode="nearest-exact")

    def _lengths(self, indices: Tensor) -> list[int]:
        return self._counts(self.latent_grid((indices.shape[1],)))

    def _order(self, indices: Tensor) -> Tensor:
        return depth_first(self._lengths(indices)).to(indices.device)


def _checked(strides: Sequence[int]) -> list[int]:
    """Return the strides, if each is a whole number that divides the one before.

    Raises:
        ConfigError: one does not.
    """
    given = list(strides)
    whole = bool(given) and all(isinstance(s, int) and s > 0 for s in given)
    if not whole or any(a % b for a, b in pairwise(given)):
        raise ConfigError(
            f"TemporalScales: expected strides of which each divides the one before; got {given}. "
            "List them from slow to fast, e.g. [4, 2, 1]."
        )
    return given
