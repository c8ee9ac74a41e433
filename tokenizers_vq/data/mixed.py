"""Several data sets one after the other."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.errors import ConfigError, DataError


class Mixed(SignalDataset):
    """The items of several data sets of the same kind of signal.

    Args:
        datasets: the parts, in order; their ids get the part's number in front: ``"00/cat.png"``.
        repeats: how often an item of each part comes in an epoch, every time drawn anew; 1 for all
            by default. Of many, all of a part come before any comes again: ``"00/000001/cat.png"``.

    Shapes:
        items as in the parts

    Raises:
        ConfigError: ``repeats`` are not as many as parts, or one is below 1.
        DataError: there is no part, or the parts hold different kinds of signal.
    """

    def __init__(
        self, datasets: Sequence[SignalDataset], repeats: Sequence[int] | None = None
    ) -> None:
        self.datasets = list(datasets)
        self.repeats = [1] * len(self.datasets) if repeats is None else list(repeats)
        if len(self.repeats) != len(self.datasets) or min(self.repeats, default=1) < 1:
            raise ConfigError(
                f"Mixed: expected {len(self.datasets)} repeats of 1 or more, one for each part; "
                f"got {self.repeats}."
            )
        if not self.datasets:
            raise DataError("Mixed: expected at least one data set; got none.")
        kinds = [part.signal for part in self.datasets]
        if any(kind != kinds[0] for kind in kinds):
            raise DataError(f"Mixed: expected one kind of signal; got {kinds}.")
        parts = list(zip(self.datasets, self.repeats, strict=True))
        self._ends = list(accumulate(len(part) * times for part, times in parts))
        ids = [
            f"{k:02d}/{id_}" if times == 1 else f"{k:02d}/{turn:06d}/{id_}"
            for k, (part, times) in enumerate(parts)
            for turn in range(times)
            for id_ in part.ids
        ]
        super().__init__(ids, kinds[0])

    def item(self, index: int, epoch: int) -> Tensor:
        """Return item ``index`` as its part shows it in ``epoch``."""
        k = bisect_right(self._ends, index)
        start = self._ends[k - 1] if k else 0
        turn, place = divmod(index - start, len(self.datasets[k]))
        return self.datasets[k].item(place, epoch * self.repeats[k] + turn)

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
