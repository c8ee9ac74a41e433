"""Statistics of channels from the training set, for backbones that standardise them."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tokenizers_vq.backbones.standardize import Standardize
from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.errors import ConfigError


class FitStatistics(Callback):
    """Fit every ``Standardize`` of a tokenizer that has no statistics yet, before training.

    Args:
        items: training items to look at, epoch after epoch.

    Raises:
        ConfigError: ``items`` is below 1.
    """

    def __init__(self, items: int = 1024) -> None:
        if items < 1:
            raise ConfigError(f"FitStatistics: expected 1 item or more; got items={items}.")
        self.items = items

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the training items and fit; nothing to do after a resume."""
        tokenizer: Any = pl_module.tokenizer
        parts = [part for part in tokenizer.modules() if isinstance(part, Standardize)]
        parts = [part for part in parts if not bool(part.fitted)]
        if parts:
            datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
            mean, std = channel_statistics(datamodule.train, self.items)
            for part in parts:
                part.fit(mean.to(part.mean), std.to(part.std))


def channel_statistics(dataset: SignalDataset, items: int = 1024) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation ``(C,)`` float64 of the channels of a data set.

    Args:
        dataset: with items ``(C, *S)``; whole epochs of it are looked at, the first ones.
        items: at least so many draws, in whole epochs.
    """
    count = 0
    total = square = torch.zeros(dataset.signal.channels, dtype=torch.float64)
    for epoch in range(-(-items // len(dataset))):
        for index in range(len(dataset)):
            x = dataset[epoch, index].double().flatten(1)
            count += x.shape[1]
            total, square = total + x.sum(1), square + x.square().sum(1)
    mean = total / count
    return mean, (square / count - mean.square()).clamp(min=0).sqrt()
