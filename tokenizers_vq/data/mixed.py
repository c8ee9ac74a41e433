"""Several data sets one after the other."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.errors import DataError


class Mixed(SignalDataset):
    """The items of several data sets of the same kind of signal.

    Args:
        datasets: the parts, in order; their ids get the part's number in front: ``"00/cat.png"``.

    Shapes:
        items as in the parts

    Raises:
        DataError: there is no part, or the parts hold different kinds of signal.
    """

    def __init__(self, datasets: Sequence[SignalDataset]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise DataError("Mixed: expected at least one data set; got none.")
        kinds = [part.signal for part in self.datasets]
        if any(kind != kinds[0] for kind in kinds):
            raise DataError(f"Mixed: expected one kind of signal; got {kinds}.")
        self._ends = list(accumulate(len(part) for part in self.datasets))
        super().__init__(
            [f"{k:02d}/{id_}" for k, part in enumerate(self.datasets) for id_ in part.ids], kinds[0]
        )

    def item(self, index: int, epoch: int) -> Tensor:
        """Return item ``index`` as its part shows it in ``epoch``."""
        k = bisect_right(self._ends, index)
        start = self._ends[k - 1] if k else 0
        return self.datasets[k].item(index - start, epoch)

    def sha256(self) -> str:
        """Return the hex digest over the digests of the parts, in order."""
        return hashlib.sha256(
            " ".join(part.sha256() for part in self.datasets).encode()
        ).hexdigest()

    @property
    def skipped(self) -> dict[str, str]:
        """Files that the parts left out, with the reason."""
        return {
            f"{k:02d}/{id_}": reason
            for k, part in enumerate(self.datasets)
            for id_, reason in part.skipped.items()
        }
