"""Loaders of a run: training data in an order that survives a kill, validation data in order."""

from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Subset

from tokenizers_vq.data.base import SignalDataset, collate
from tokenizers_vq.data.resumable import ResumableLoader, rank_and_world
from tokenizers_vq.errors import ConfigError


class SignalData(lightning.LightningDataModule):
    """Training and validation batches ``(B, C, *S)`` of two data sets.

    Args:
        train: data set to learn from.
        val: data set to validate on, each item once; None for none.
        batch_size: items per batch and process.
        num_workers: processes that load ahead; 0 loads in the training process.
        repeat: times that one epoch goes through the training set; see ``ResumableLoader``.
        seed: of the order.
        prior: items of the size at which files will be written, for the entropy coder's
            statistics; default the training items.

    Raises:
        ConfigError: a data set has another signal than the other.
    """

    def __init__(
        self,
        train: SignalDataset,
        val: SignalDataset | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        repeat: int | None = None,
        seed: int = 0,
        prior: SignalDataset | None = None,
    ):
        super().__init__()
        if val is not None and val.signal != train.signal:
            raise ConfigError(
                f"data: expected validation items like the training items, {train.signal}; got "
                f"{val.signal}. Correct the data config."
            )
        self.train, self.val, self.prior = train, val, prior or train
        self.batch_size, self.num_workers = batch_size, num_workers
        self.repeat, self.seed = repeat, seed

    def train_dataloader(self) -> ResumableLoader:
        """Return the training loader; its place in the data goes into the checkpoint."""
        return ResumableLoader(
            self.train,
            self.batch_size,
            seed=self.seed,
            repeat=self.repeat,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> Any:
        """Return the validation loader: every n-th item for each of n processes, none twice."""
        if self.val is None:
            return []
        rank, world = rank_and_world()
        return DataLoader(
            Subset(self.val, range(rank, len(self.val), world)),
            self.batch_size,
            collate_fn=collate,
            num_workers=self.num_workers,
            # one of its own: drawing from the global generator would shift the training's numbers
            generator=torch.Generator().manual_seed(self.seed),
        )
