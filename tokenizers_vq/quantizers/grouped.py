"""Parallel quantizers on groups of channels.

Reference:
    Jegou et al., Product Quantization for Nearest Neighbor Search, 2011,
    https://doi.org/10.1109/TPAMI.2010.57, section II.B;
    Zhuang et al., WeTok: Powerful Discrete Tokenization for High-Fidelity Visual Reconstruction,
    2025, https://arxiv.org/abs/2508.05599 (groups of LFQ).
    Differs from the latter: entropies are per group, not pooled over groups.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import Flat, Tokens, mean_terms


class Grouped(Quantizer):
    """Independent quantizers on contiguous groups of channels; bits per position add up.

    Losses and terms are means over the groups. Indices are concatenated in channel order.
    Splitting channels to raise the bit rate at the same number of tokens is described by published
    patent applications on channel-split quantization.

    Args:
        dim: latent width D; None for ``code_dim``.
        groups: the quantizers, at least one; each takes as many channels as its own width.
        code_dim: width that is split; None for the sum of the groups' widths. Where it differs
            from ``dim``, learned linear maps lead there and back.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, sum of the groups' K)

    Raises:
        ConfigError: there is no group, or their widths do not add up to ``code_dim``.

    Example:
        >>> from tokenizers_vq.quantizers.lfq import LFQ
        >>> q = Grouped(dim=32, groups=[LFQ(bits=8) for _ in range(4)])
        >>> q(torch.zeros(2, 4, 4, 32)).indices.shape
        torch.Size([2, 4, 4, 4])
    """

    nested = True

    def __init__(
        self, dim: int | None = None, *, groups: Sequence[Quantizer], code_dim: int | None = None
    ) -> None:
        if not groups:
            raise ConfigError("Grouped: expected at least one group; got none.")
        widths = [group.dim for group in groups]
        width = sum(widths) if code_dim is None else code_dim
        if sum(widths) != width:
            raise ConfigError(
                f"Grouped: expected groups of {width} channels in all; got {sum(widths)}. "
                "Set code_dim to the sum, or give each group its dim."
            )
        sizes = tuple(size for group in groups for size in group.codebook_sizes)
        super().__init__(dim, width, sizes)
        self.groups = nn.ModuleList(groups)
        self._widths = widths
        self._columns = [group.num_codebooks for group in groups]

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return the width of each of ``count`` groups that share ``dim`` channels.

        Raises:
            ConfigError: ``dim`` cannot be split evenly.
        """
        if dim % count:
            raise ConfigError(
                f"Grouped: expected a width that {count} groups can share; got {dim}. "
                "Set code_dim to a multiple."
            )
        return dim // count

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize each group by its own head."""
        parts = zip(self._parts(), self._split(u), self._split(source), strict=True)
        flats = [part.quantize_rows(rows, origin, tokens) for part, rows, origin in parts]
        return Flat(
            torch.cat([flat.out for flat in flats], dim=1),
            torch.cat([flat.indices for flat in flats], dim=1),
            torch.stack([flat.loss for flat in flats]).mean(),
            mean_terms([flat.terms for flat in flats]),
        )

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of all groups."""
        rows = zip(self._parts(), self._split(u), strict=True)
        return torch.cat([part.encode_rows(row) for part, row in rows], dim=1)

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, K)``; zeros in groups with index -1."""
        columns = zip(self._parts(), torch.split(indices, self._columns, dim=1), strict=True)
        return torch.cat([part.decode_rows(column) for part, column in columns], dim=1)

    def code_update(self, u: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Update each group from its own channels."""
        columns = torch.split(indices, self._columns, dim=1)
        replaced = [
            part.update_rows(row, column, skipped)
            for part, row, column in zip(self._parts(), self._split(u), columns, strict=True)
        ]
        return any(replaced)

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The radices of the indices of all groups."""
        return tuple(radices for part in self._parts() for radices in part.digits)

    @property
    def has_state(self) -> bool:
        """Whether ``update`` changes any group."""
        return any(part.has_state for part in self._parts())

    @property
    def learns_by_update(self) -> bool:
        """Whether any group learns in ``update`` only."""
        return any(part.learns_by_update for part in self._parts())

    def _parts(self) -> list[Quantizer]:
        return [part for part in self.groups if isinstance(part, Quantizer)]

    def _split(self, u: Tensor) -> tuple[Tensor, ...]:
        return torch.split(u, self._widths, dim=1)
