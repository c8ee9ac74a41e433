"""How much of the codebooks is in use, counted while training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.functional.distributed import sum_over_ranks

LARGEST = 2**22  # codes that are counted one by one; beyond that the counts cost too much memory


class CodebookUse:
    """A histogram of indices over all codebooks.

    It is no part of the module's state: it says what happened since the last ``take``.

    Args:
        sizes: the K codebook sizes; above 4,194,304 codes in all, and of none, nothing is counted.
    """

    def __init__(self, sizes: Sequence[int]):
        self.sizes = tuple(sizes)
        self._counts: Tensor | None = None

    def add(self, indices: Tensor) -> None:
        """Count ``indices (*, K)`` int64; -1 is left out."""
        total = sum(self.sizes)
        if not 0 < total <= LARGEST:
            return
        if self._counts is None or self._counts.device != indices.device:
            self._counts = torch.zeros(total + 1, device=indices.device, dtype=torch.int64)
        starts = [sum(self.sizes[:k]) for k in range(len(self.sizes))]
        shifted = indices + torch.tensor(starts, device=indices.device)
        # dropped positions go to the extra slot at the end
        flat = torch.where(indices < 0, total, shifted).flatten()
        self._counts.index_add_(0, flat, torch.ones_like(flat))

    def take(self, device: torch.device) -> dict[str, float]:
        """Return the numbers of all processes together, and begin anew.

        Every process has to call it, also one that counted nothing.

        Args:
            device: where the processes exchange their counts.

        Returns:
            ``codebook/usage``, the share of codes that occurred, and ``codebook/perplexity``,
            exp of the entropy of their frequencies; each the mean over the K codebooks.
        """
        total = sum(self.sizes)
        if not 0 < total <= LARGEST:
            return {}
        mine = torch.zeros(total, device=device) if self._counts is None else self._counts[:-1]
        counts = sum_over_ranks(mine)[0].cpu().double()
        self._counts = None
        usage, perplexity = [], []
        for part in torch.split(counts, list(self.sizes)):
            p = part / part.sum().clamp(min=1)
            usage.append((part > 0).double().mean())
            perplexity.append(torch.special.entr(p).sum().exp())
        return {
            "codebook/usage": float(torch.stack(usage).mean()),
            "codebook/perplexity": float(torch.stack(perplexity).mean()),
        }
