"""The checkpoint of a run: written whole or not at all, enough to go on bit for bit."""

import os
import random
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

LAST = "last.ckpt"


class Stopped(Exception):
    """The run was asked to stop (Ctrl-C), and its checkpoint is written."""


class LastCheckpoint(Checkpoint):
    """Write ``last.ckpt`` every few optimizer steps, at the end, and at Ctrl-C.

    It holds weights, optimizers, place in the data and random states, and is read back by tensors
    and plain data alone. Ctrl-C lets the optimizer step finish, saves and stops; a second Ctrl-C
    stops at once. Lightning calls checkpoint callbacks after all others, so what they keep is
    saved in its newest state.

    Args:
        folder: where to.
        every_n_steps: optimizer steps between two checkpoints.
    """

    def __init__(self, folder: str | Path, every_n_steps: int = 500):
        self.path = Path(folder) / LAST
        self.every_n_steps = every_n_steps
        self._saved = -1
        self._asked = False
        self._restore: dict[str, Any] | None = None
        self._previous: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for Ctrl-C."""
        self._asked = False
        try:
            self._previous = signal.signal(signal.SIGINT, self._ask)
        except ValueError:  # not in the main thread, where no signal arrives either
            self._previous = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step to go on from, which is saved already."""
        self._saved = trainer.global_step

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take back the random states of the checkpoint, after all that setting up has drawn."""
        if self._restore is not None:
            set_random_state(self._restore)
            self._restore = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time; stop when somebody asked for it.

        Raises:
            Stopped: after Ctrl-C.
        """
        step = trainer.global_step
        if not getattr(pl_module, "between_steps", True) or step == self._saved:
            return
        stop = self._asked
        if trainer.world_size > 1:  # every process has to stop at the same step
            stop = bool(trainer.strategy.reduce_boolean_decision(stop, all=False))
        if stop or step % self.every_n_steps == 0:
            self._save(trainer)
        if stop:
            raise Stopped

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of the run."""
        if trainer.global_step != self._saved:
            self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give Ctrl-C its old meaning back."""
        self._unlisten()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give Ctrl-C its old meaning back."""
        self._unlisten()

    def _unlisten(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def state_dict(self) -> dict[str, Any]:
        """Return the random states, for the checkpoint."""
        return {"random": random_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the random states of a checkpoint until the first batch."""
        self._restore = state_dict["random"]

    def _save(self, trainer: Trainer) -> None:
        # every process takes part; the first one writes
        part = self.path.with_name(f".{self.path.name}.part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.path)
        self._saved = trainer.global_step


def random_state() -> dict[str, Any]:
    """Return the states of the global random generators as tensors and plain data."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(kind), [int(k) for k in keys], int(position), int(has_gauss), float(gauss)],
        "python": [version, list(words), gauss_next],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the global random generators to what ``random_state`` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
