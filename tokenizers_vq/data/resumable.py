"""A data loader that goes on exactly where a killed run stopped."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from tokenizers_vq.data.base import SignalDataset, collate
from tokenizers_vq.errors import ConfigError, DataError


class ResumableLoader:
    """Batches of a data set, in an order that is a function of the seed alone.

    The place in the stream is the only state: how many items all processes together were given.
    ``state_dict`` has it, ``load_state_dict`` goes back to it, with any number of workers. Each
    ``iter`` goes on from that place to the end of the epoch, or begins the next epoch if that was
    reached; so ``next(iter(loader))`` takes a batch that no later loop will see again. ``len`` is
    always the number of batches of a whole epoch.

    Under ``torch.distributed`` (found when a loop starts, not when the loader is built), global
    batch k is ``batch_size * world`` successive items of the stream and rank r takes the r-th part:
    two processes see together what one process with twice the batch sees. The last, smaller global
    batch is dropped (``drop_last``), or divided as evenly as possible; only when it has fewer items
    than there are processes are some given twice, since every process needs a batch.

    Args:
        dataset: what to load.
        batch_size: items per batch and process.
        shuffle: a new order in each epoch; else the order of the data set.
        drop_last: leave out the last batch of an epoch if it is smaller; default: as ``shuffle``.
        seed: of the order.
        repeat: times that one epoch goes through the data set, each time in another order and with
            other crops; for sets that are small beside a batch. Default: once, or as often as one
            global batch needs.
        num_workers: processes that load ahead; 0 loads in this one.
        pin_memory: put batches in page-locked memory, for faster copies to a GPU.

    Shapes:
        batch ``(B, C, *S)`` float32

    Raises:
        ConfigError: ``batch_size`` or ``repeat`` is below 1.
    """

    def __init__(
        self,
        dataset: SignalDataset,
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool | None = None,
        seed: int = 0,
        repeat: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1 or (repeat is not None and repeat < 1):
            raise ConfigError(
                "ResumableLoader: expected batch_size and repeat of 1 or more; "
                f"got batch_size={batch_size}, repeat={repeat}."
            )
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.drop_last = shuffle if drop_last is None else drop_last
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self._repeat = repeat
        self._epoch = 0
        self._given = 0  # items of this epoch that all ranks together were given

    @property
    def repeat(self) -> int:
        """Times that one epoch goes through the data set."""
        if self._repeat is not None or not self.drop_last:
            return self._repeat or 1
        return ceil(self._global_batch() / len(self.dataset))

    def _global_batch(self) -> int:
        return self.batch_size * rank_and_world()[1]

    def _items(self) -> int:
        """Return the number of items that all ranks together are given in one epoch."""
        total = len(self.dataset) * self.repeat
        return total - total % self._global_batch() if self.drop_last else total

    def __len__(self) -> int:
        return ceil(self._items() / self._global_batch())

    def __iter__(self) -> Iterator[Tensor]:
        # A generator: nothing moves before the first batch is asked for, however often a trainer
        # calls iter() while it sets itself up.
        if self._given >= self._items():
            self._epoch, self._given = self._epoch + 1, 0
        items, step = self._items(), self._global_batch()
        # a generator of its own: a loader without one draws from torch's global generator
        loader = DataLoader(
            self.dataset,
            batch_sampler=list(self._batches()),
            collate_fn=collate,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator().manual_seed(self.seed),
        )
        for batch in loader:
            self._given = min(self._given + step, items)
            yield batch

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        """Yield this rank's remaining batches of the epoch as lists of (draw, index)."""
        rank, world = rank_and_world()
        order = self._order()
        for start in range(self._given, self._items(), self._global_batch()):
            batch = order[start : start + self._global_batch()]
            if len(batch) < world:
                batch = np.resize(batch, (world, 2))
            yield [(draw, index) for draw, index in np.array_split(batch, world)[rank].tolist()]

    def _order(self) -> np.ndarray:
        """Return (items, 2): which draw of which index comes when in this epoch, for all ranks."""
        count, repeat = len(self.dataset), self.repeat
        generator = np.random.default_rng([self.seed % 2**32, self._epoch])
        passes = []
        for turn in range(repeat):
            indices = generator.permutation(count) if self.shuffle else np.arange(count)
            draw = np.full(count, self._epoch * repeat + turn)
            passes.append(np.stack([draw, indices], axis=1))
        order: np.ndarray = np.concatenate(passes)[: self._items()]
        return order

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the stream, and what fixes the stream, as plain data."""
        stream = {"seed": self.seed, "items": len(self.dataset), "repeat": self.repeat}
        return {**stream, "epoch": self._epoch, "given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the place that a state names; the number of processes may differ.

        Raises:
            DataError: the state belongs to another data set, seed or repeat.
        """
        here = self.state_dict()
        for name in ("items", "seed", "repeat"):
            if state[name] != here[name]:
                raise DataError(
                    f"ResumableLoader: expected a state with {name}={here[name]}; "
                    f"got {name}={state[name]}. Resume with the data and options of the first run."
                )
        self._epoch, self._given = int(state["epoch"]), int(state["given"])


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of processes: (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
