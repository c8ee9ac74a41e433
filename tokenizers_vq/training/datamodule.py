"""Loaders of a run: training data in an order that survives a kill, validation data in order."""

from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Subset

from tokenizers_vq.data.base import SignalDataset, collate
from tokenizers_vq.data.resumable import ResumableLoader, rank_and_world
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec

# What goes with a kind of signal on the command line, for the advice of an error.
STARTERS = {
    "image": "data=synthetic_images objective=image_l1",
    "audio": "data=synthetic_audio objective=audio_mel",
    "motion": "data=synthetic_motion objective=motion",
    "protein": "data=synthetic_protein objective=protein",
}


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

    def check(self, signal: SignalSpec) -> None:
        """Raise ``ConfigError`` if a backbone for ``signal`` does not take the items."""
        got = self.train.signal
        if got.kind != signal.kind:
            starter = STARTERS.get(signal.kind)
            raise ConfigError(
                f"train: expected data of the backbone's kind, {signal.kind}; got {got.kind}. "
                + (f"Add {starter}." if starter else "Choose other data.")
            )
        if (got.channels, got.sample_rate) != (signal.channels, signal.sample_rate):
            raise ConfigError(
                f"train: expected data like the backbone's signals, {_words(signal)}; got "
                f"{_words(got)}. Correct the data config."
            )

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


def _words(signal: SignalSpec) -> str:
    rate = "" if signal.sample_rate is None else f" at {signal.sample_rate} Hz"
    return f"{signal.channels} channel{'s' * (signal.channels != 1)}{rate}"
