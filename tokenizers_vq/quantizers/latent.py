"""Latent quantization: each channel has a few learned values.

Reference:
    Hsu et al., Disentanglement via Latent Quantization, 2023, https://arxiv.org/abs/2305.18378.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokenizers_vq.functional.levels import nearest_levels, pick_levels
from tokenizers_vq.functional.radix import check_radix, pack_digits, unpack_digits
from tokenizers_vq.quantizers.flat import mean_square
from tokenizers_vq.quantizers.fsq import check_levels
from tokenizers_vq.quantizers.rows import RowQuantizer


class LatentQuantizer(RowQuantizer):
    """Latent quantization: the nearest of each channel's own learned numbers.

    The values start evenly spaced in [-1/2, 1/2] and learn by gradient. An index names the places
    of its values in their tables, not their sizes, so tokens keep their meaning while values move.
    The paper owes its disentangled channels to strong weight decay on encoder and decoder.

    Args:
        dim: latent width D; None for the number of channels.
        levels: number of values per channel; their product is the codebook size.
        commitment_weight: pulls latents to their values.
        codebook_weight: pulls values to their latents.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Terms:
        ``commitment`` and ``codebook``, equal in value.

    Raises:
        ConfigError: ``levels`` is no list of whole numbers from 2, or their product reaches 2**63.

    Example:
        >>> q = LatentQuantizer(dim=16, levels=(8, 8, 8))
        >>> q(torch.zeros(2, 4, 4, 16)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    conventions = (*RowQuantizer.conventions, "levels")
    _place: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        levels: Sequence[int],
        commitment_weight: float = 0.1,
        codebook_weight: float = 0.1,
    ) -> None:
        where = type(self).__name__
        levels = check_levels(levels, where)
        super().__init__(dim, len(levels), (check_radix(levels, where),))
        self.levels = levels
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.values = nn.Parameter(torch.cat([_even(count) for count in levels]))
        # Where each channel's values begin; the place after the last holds the filling.
        place, start = torch.full((len(levels), max(levels)), sum(levels)), 0
        for channel, count in enumerate(levels):
            place[channel, :count] = torch.arange(start, start + count)
            start += count
        self.register_buffer("_place", place, persistent=False)

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The levels of all channels."""
        return (self.levels,)

    def table(self) -> Tensor:
        """Return the values ``(d, L)`` float32; infinite where a channel has fewer than others."""
        values = self.values.float()
        return torch.cat([values, values.new_full((1,), torch.inf)])[self._place]

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the nearest values; the lower of equally near ones."""
        return pack_digits(nearest_levels(u, self.table()), self.levels)[:, None]

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the values ``(N, d)`` of ``indices (N, 1)``, as learned so far."""
        return pick_levels(self.table(), unpack_digits(indices[:, 0], self.levels))

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the terms ``commitment`` and ``codebook``."""
        commitment = mean_square(u, codes.detach(), valid)
        codebook = mean_square(codes, u.detach(), valid)
        loss = self.commitment_weight * commitment + self.codebook_weight * codebook
        return loss, {"commitment": commitment.detach(), "codebook": codebook.detach()}


def _even(count: int) -> Tensor:
    """Return ``count`` values in [-1/2, 1/2], zero among them."""
    if count % 2:
        return torch.linspace(-0.5, 0.5, count)
    return torch.arange(count) / count - 0.5
