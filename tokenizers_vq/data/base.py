"""The contract of every data set: named signals, drawn the same way by every run of a seed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tokenizers_vq.errors import DataError, ShapeError
from tokenizers_vq.types import SignalSpec


class SignalDataset(Dataset[Tensor]):
    """A list of signals with stable names.

    ``dataset[i]`` is item ``i`` as epoch 0 shows it; ``dataset[epoch, i]`` as a later epoch does. A
    random crop depends on the seed of the data set, ``epoch`` and ``i`` alone, never on a global
    generator, so a killed and resumed run sees what the uninterrupted one would have seen.

    Args:
        ids: unique, sorted names of the items.
        signal: what the numbers mean.

    Shapes:
        item ``(C, *S)`` float32, contiguous, inside ``signal.value_range``; pictures ``(3, H, W)``.

    Raises:
        DataError: there is no item, or the names are not unique and sorted.
    """

    def __init__(self, ids: Sequence[str], signal: SignalSpec) -> None:
        where = type(self).__name__
        if not ids:
            raise DataError(f"{where}: expected at least one item; got none.")
        if any(a >= b for a, b in pairwise(ids)):
            raise DataError(f"{where}: expected unique and sorted ids; got {list(ids)!r:.80}.")
        self.ids = list(ids)
        self.signal = signal

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: int | tuple[int, int]) -> Tensor:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        return self.item(range(len(self))[index], epoch)

    def item(self, index: int, epoch: int) -> Tensor:
        """Return item ``index`` (0 and up) as ``epoch`` shows it, ``(C, *S)`` float32."""
        raise NotImplementedError

    def sha256(self) -> str:
        """Return the hex digest of all ids and their data; results carry it."""
        raise NotImplementedError

    @property
    def skipped(self) -> dict[str, str]:
        """Files that are not used so far, each with the reason."""
        return {}


def collate(items: Sequence[Tensor]) -> Tensor:
    """Stack items ``(C, *S)`` of one shape to a batch ``(B, C, *S)``.

    Raises:
        ShapeError: the items have different shapes.
    """
    shapes = sorted({tuple(item.shape) for item in items})
    if len(shapes) > 1:
        raise ShapeError(
            f"collate: expected items of one shape; got {shapes[0]} and {shapes[-1]}. "
            "Give the data set a size, or use batch_size=1."
        )
    return torch.stack(list(items))
