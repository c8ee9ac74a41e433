"""Exponential moving average of the tokenizer's weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tokenizers_vq.errors import ConfigError


class EMA(Callback):
    """Keep an average of the tokenizer; validate and publish that, train the weights themselves.

    Parameters and floating-point buffers are averaged, codebooks that learn by updates among them;
    integer and boolean buffers (counters, flags) are copied, for an average of them means nothing.
    The discriminator has no part in it. Lightning's own callback averages the whole module and
    leaves integer buffers at their first value.

    Args:
        decay: weight of the old average at every optimizer step.
        warmup: begin with ``(1 + n) / (10 + n)`` where that is smaller, n being the steps so far.

    Raises:
        ConfigError: ``decay`` is outside 0..1.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True):
        if not 0 <= decay <= 1:
            raise ConfigError(f"EMA: expected decay from 0 to 1; got {decay}. Use 0.999 or so.")
        self.decay, self.warmup = decay, warmup
        self.average: dict[str, Tensor] = {}
        self._step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are, unless a checkpoint brought an average."""
        live = _state(pl_module)
        self.average = {
            name: self.average.get(name, value).detach().clone().to(value.device)
            for name, value in live.items()
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step to go on from; Lightning restores it only after ``on_fit_start``."""
        self._step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average, once per optimizer step."""
        if trainer.global_step == self._step:
            return
        self._step = n = trainer.global_step
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        for name, value in _state(pl_module).items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in place."""
        self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the trained weights back."""
        self._swap(pl_module)

    @contextmanager
    def applied(self, pl_module: LightningModule) -> Iterator[None]:
        """Have the average in place inside the ``with`` block."""
        self._swap(pl_module)
        try:
            yield
        finally:
            self._swap(pl_module)

    @torch.no_grad()
    def put(self, pl_module: LightningModule) -> None:
        """Overwrite the trained weights by the average."""
        for name, value in _state(pl_module).items():
            if name in self.average:
                value.copy_(self.average[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the average, for the checkpoint."""
        return {"average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average of a checkpoint."""
        self.average = dict(state_dict["average"])

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        for name, value in _state(pl_module).items():
            if name in self.average:
                held = value.clone()
                value.copy_(self.average[name])
                self.average[name].copy_(held)


def _state(pl_module: LightningModule) -> dict[str, Tensor]:
    """Return the tokenizer's state by name; the tensors are the live ones."""
    tokenizer: Any = pl_module.tokenizer
    return {name: value for name, value in tokenizer.state_dict().items() if value.numel()}
