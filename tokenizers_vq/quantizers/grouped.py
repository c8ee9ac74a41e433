"""Parallel quantizers on groups of channels.

Reference:
    Jegou et al., Product Quantization for Nearest Neighbor Search, 2011,
    https://doi.org/10.1109/TPAMI.2010.57, section II.B;
    Zhuang et al., WeTok: Powerful Discrete Tokenization for High-Fidelity Visual Reconstruction,
    2025, https://arxiv.org/abs/2508.05599 (groups of LFQ);
    Bai et al., Factorized Visual Tokenization and Generation, 2024,
    https://arxiv.org/abs/2411.16681, section 3.2 (disentanglement).
    Differs from the second unless ``pooled_entropy_weight`` is set: entropies are per group.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.entropy import batch_entropy, sample_entropy, weighted_mean
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import Flat, Tokens, linear, mean_terms
from tokenizers_vq.quantizers.lfq import LFQ
from tokenizers_vq.quantizers.rows import Choose, RowQuantizer, row_parts
from tokenizers_vq.quantizers.stages import plain_tables


class Grouped(RowQuantizer):
    """Independent quantizers on contiguous groups of channels; bits per position add up.

    Losses and terms are means over the groups. Indices are concatenated in channel order.
    Splitting channels to raise the bit rate at the same number of tokens is described by published
    patent applications on channel-split quantization. MambaVideo's has no public code: that its
    expansion is the linear map to ``code_dim``, and its groups equal heads, is our reading.

    Args:
        dim: latent width D; None for ``code_dim``.
        groups: the quantizers, at least one; each takes as many channels as its own width.
        code_dim: width that is split; None for the sum of the groups' widths. Where it differs
            from ``dim``, learned linear maps lead there and back.
        disentangle_weight: of the squared cosine between the codes of two groups, mean over tokens
            and pairs, so that groups do not say the same thing twice. It moves latents, with a
            straight-through gradient, not codes. Needs at least two groups, all of one width.
        pooled_entropy_weight: of the sample entropy less the batch entropy, the latter that of the
            soft assignment averaged over tokens and groups together, as in WeTok. It is never
            below the mean of the groups' own, and asks less: two groups that are each stuck on
            another half of the codes look even. For groups of lfq or bsq with equally many bits,
            whose own ``entropy_weight`` has to be 0; their ``diversity_weight`` counts.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, sum of the groups' K)

    Terms:
        Each term's mean over the groups; ``disentangle``, ``entropy_sample`` and ``entropy_batch``
        where they have a weight.

    Raises:
        ConfigError: there is no group, one whose tokens depend on their place, or their widths do
            not add up to ``code_dim``, or ``disentangle_weight`` or ``pooled_entropy_weight`` has
            groups it cannot compare.

    Example:
        >>> from tokenizers_vq.quantizers.lfq import LFQ
        >>> q = Grouped(dim=32, groups=[LFQ(bits=8) for _ in range(4)])
        >>> q(torch.zeros(2, 4, 4, 32)).indices.shape
        torch.Size([2, 4, 4, 4])
    """

    conventions = (*RowQuantizer.conventions, "widths")
    nested = True

    def __init__(
        self,
        dim: int | None = None,
        *,
        groups: Sequence[Quantizer],
        code_dim: int | None = None,
        disentangle_weight: float = 0.0,
        pooled_entropy_weight: float = 0.0,
    ) -> None:
        if not groups:
            raise ConfigError("Grouped: expected at least one group; got none.")
        groups = row_parts(groups, "Grouped")
        widths = [group.dim for group in groups]
        width = sum(widths) if code_dim is None else code_dim
        if sum(widths) != width:
            raise ConfigError(
                f"Grouped: expected groups of {width} channels in all; got {sum(widths)}. "
                "Set code_dim to the sum, or give each group its dim."
            )
        if disentangle_weight and (len(groups) < 2 or len(set(widths)) > 1):
            raise ConfigError(
                f"Grouped: expected at least two groups of one width to disentangle; got {widths}. "
                "Set disentangle_weight to 0."
            )
        sizes = tuple(size for group in groups for size in group.codebook_sizes)
        super().__init__(dim, width, sizes)
        self.groups = nn.ModuleList(groups)
        self.disentangle_weight = disentangle_weight
        self.pooled_entropy_weight = pooled_entropy_weight
        if pooled_entropy_weight:
            _check_pooled(groups)
        self.widths = widths
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
        out = torch.cat([flat.out for flat in flats], dim=1)
        loss = torch.stack([flat.loss for flat in flats]).mean()
        terms = mean_terms([flat.terms for flat in flats])
        if self.disentangle_weight:
            overlap = squared_cosine(self._split(straight_through(u, out)), tokens.valid)
            loss = loss + self.disentangle_weight * overlap
            terms["disentangle"] = overlap.detach()
        if self.pooled_entropy_weight:
            spread, entropies = self._pooled(u, tokens.valid)
            loss = loss + self.pooled_entropy_weight * spread
            terms |= entropies
        return Flat(out, torch.cat([flat.indices for flat in flats], dim=1), loss, terms)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of all groups."""
        tables = plain_tables(self._parts())
        if tables and all(table.shape == tables[0].shape for table in tables):
            pieces = u.reshape(u.shape[0], len(tables), tables[0].shape[1]).transpose(0, 1)
            return nearest_code(pieces.detach(), torch.stack(tables))[1].T.contiguous()
        rows = zip(self._parts(), self._split(u), strict=True)
        return torch.cat([part.encode_rows(row) for part, row in rows], dim=1)

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, K)``; zeros in groups with index -1."""
        columns = zip(self._parts(), torch.split(indices, self._columns, dim=1), strict=True)
        return torch.cat([part.decode_rows(column) for part, column in columns], dim=1)

    def soft_rows(self, rows: Tensor, choose: Choose) -> tuple[Tensor, list[Tensor]]:
        """Return indices and distributions of all groups, each from its own channels."""
        split = self._split(linear(self.project_in, rows))
        pairs = [
            part.soft_rows(row, choose) for part, row in zip(self._parts(), split, strict=True)
        ]
        return torch.cat([index for index, _ in pairs], dim=1), [p for _, ps in pairs for p in ps]

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

    def _pooled(self, u: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the difference of the entropies over all groups, and both."""
        parts = [part for part in self.groups if isinstance(part, LFQ)]
        rows = zip(parts, self._split(u), strict=True)
        logits = torch.cat([part.logits(linear(part.project_in, row)) for part, row in rows])
        valid = valid.repeat(len(parts))
        sample = sample_entropy(logits, valid)
        # In evaluation ranks may have different numbers of batches: nothing may wait for another.
        batch, exact = batch_entropy(logits, valid, all_ranks=self.training)
        name = "entropy_batch" if exact else "entropy_batch_bound"
        terms = {"entropy_sample": sample.detach(), name: batch.detach()}
        return sample - parts[0].diversity_weight * batch, terms

    def _parts(self) -> list[RowQuantizer]:
        return [part for part in self.groups if isinstance(part, RowQuantizer)]

    def _split(self, u: Tensor) -> tuple[Tensor, ...]:
        return torch.split(u, self.widths, dim=1)


def _check_pooled(groups: Sequence[Quantizer]) -> None:
    """Raise ``ConfigError`` unless the soft assignments of all groups are over the same codes."""
    kinds = {
        (type(group), group.code_dim, group.entropy_weight == 0)
        if isinstance(group, LFQ)
        else (type(group), 0, False)
        for group in groups
    }
    if len(kinds) > 1 or not all(silent for _, _, silent in kinds):
        found = sorted({kind.__name__ for kind, _, _ in kinds})
        raise ConfigError(
            "Grouped: expected groups of lfq or bsq with equally many bits and entropy_weight=0 "
            f"for a pooled_entropy_weight; got {', '.join(found)} that are not. Change the groups, "
            "or set it to 0."
        )


def squared_cosine(parts: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Return the squared cosine between two of ``parts (N, d)``, mean over valid rows and pairs.

    Args:
        parts: at least two, of one width; a row of zeros has cosine 0 with everything.
        valid: ``(N,)`` bool.

    Reference:
        Bai et al., 2024, https://arxiv.org/abs/2411.16681, section 3.2.
    """
    units = [F.normalize(part, dim=-1) for part in parts]
    cosines = [(a * b).sum(-1) for a, b in combinations(units, 2)]
    return torch.stack([weighted_mean(cosine.square(), valid) for cosine in cosines]).mean()
