"""What happens beside the training step: pictures, progress, schedules, publishing."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.losses.schedule import Schedule
from tokenizers_vq.training.checkpoint import Stopped
from tokenizers_vq.training.ema import EMA
from tokenizers_vq.training.prior import fit_prior

log = logging.getLogger(__name__)

SHOWN = ("train/loss", "train/recon/l1", "train/recon/l2", "val/psnr", "codebook/usage")


class Progress(Callback):
    """One progress bar for the whole run, in optimizer steps, with the last numbers."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar, at the place where the run goes on."""
        if trainer.is_global_zero:
            from tqdm import tqdm

            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._bar = tqdm(
                total=total, initial=trainer.global_step, unit="step", dynamic_ncols=True
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self._bar is not None and trainer.global_step > self._bar.n:
            latest: dict[str, float] = getattr(pl_module, "latest", {})
            shown = {name.rpartition("/")[2]: latest[name] for name in SHOWN if name in latest}
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ReconstructionGrid(Callback):
    """Write ``recon/step_<n>.png`` at each validation: pictures above their reconstructions.

    Of videos, the frames of the first one. Other signals are left to later callbacks.

    Args:
        folder: of the run.
        count: pictures, taken from the first validation batch.
    """

    def __init__(self, folder: str | Path, count: int = 8):
        self.folder, self.count = Path(folder) / "recon", count

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Tensor,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the picture of the first batch."""
        if batch.ndim == 5:  # frames of the first video
            batch, outputs = batch[0].transpose(0, 1), outputs[0].transpose(0, 1)
        if batch_idx or batch.ndim != 4 or not trainer.is_global_zero or trainer.sanity_checking:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{trainer.global_step:08d}.png"
        save_grid(path, batch[: self.count], outputs[: self.count])


def save_grid(path: str | Path, *rows: Tensor) -> None:
    """Write rows of pictures as one PNG.

    Args:
        path: of the file.
        *rows: each ``(N, C, H, W)`` in [-1, 1], all of one shape; C is 1 or 3.
    """
    grid = torch.stack([row.detach().float().cpu() for row in rows])  # (R, N, C, H, W)
    grid = grid[:, :, :3].expand(-1, -1, 3, -1, -1)
    grid = torch.nn.functional.pad(grid, (1, 1, 1, 1), value=1.0)
    count, number, _, height, width = grid.shape
    sheet = grid.permute(0, 3, 1, 4, 2).reshape(count * height, number * width, 3)
    pixels = ((sheet.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)
    Image.fromarray(pixels).save(path)


class QuantizerSchedule(Callback):
    """Multiply loss weights of the quantizer by schedules, e.g. to anneal the entropy.

    Args:
        schedules: name of a plain number attribute of the quantizer (``entropy_weight``) to a
            schedule of the factor; applied to every part of a nested quantizer that has it.

    Raises:
        ConfigError: a schedule is malformed; at the start, no part has an attribute of that name.
    """

    def __init__(self, schedules: Mapping[str, Any] | None = None):
        self.schedules = {
            name: Schedule.from_config(config, f"schedule of {name}")
            for name, config in (schedules or {}).items()
        }
        self._first: list[tuple[nn.Module, str, float]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the configured values, which the factors multiply."""
        tokenizer: Any = pl_module.tokenizer
        if self._first:
            return
        for name in self.schedules:
            parts = [
                part
                for part in tokenizer.quantizer.modules()
                if isinstance(getattr(part, name, None), int | float)
            ]
            if not parts:
                raise ConfigError(
                    f"QuantizerSchedule: expected a number that the quantizer has; got {name!r}, "
                    f"which {type(tokenizer.quantizer).__name__} lacks. Take the schedule out."
                )
            self._first += [(part, name, float(getattr(part, name))) for part in parts]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the values of this optimizer step."""
        for part, name, value in self._first:
            setattr(part, name, value * self.schedules[name](trainer.global_step))


class Publish(Callback):
    """Write the folder ``tokenizer/``, ready to load and to push, at the end and at Ctrl-C.

    It has the averaged weights where there is an ``EMA``, and the discriminator beside them.

    Args:
        folder: of the run.
        name: ``arch.tag`` of the tokenizer; default its own.
        discriminator: plain config that the discriminator was built from.
        prior_items: draws of training items that the entropy coder's statistics are counted on at
            the end; 0 for none, which makes ``.tok`` files fixed-width.
        dtype: of the stored weights, e.g. ``float16`` for half the size; default their own.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str | None = None,
        discriminator: Mapping[str, Any] | None = None,
        prior_items: int = 0,
        dtype: str | None = None,
    ):
        self.prior_items = prior_items
        self.dtype = None if dtype is None else _dtype(dtype)
        self.folder, self.name, self.discriminator = Path(folder) / "tokenizer", name, discriminator

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the trained tokenizer with the statistics of its codes."""
        self._publish(trainer, pl_module, self.prior_items)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Publish what there is when somebody stopped the run."""
        if isinstance(exception, Stopped):
            self._publish(trainer, pl_module)

    def _publish(self, trainer: Trainer, pl_module: LightningModule, prior_items: int = 0) -> None:
        if not trainer.is_global_zero:
            return
        module: Any = pl_module
        critic = module.objective.discriminator
        beside = (
            None if critic is None or self.discriminator is None else (critic, self.discriminator)
        )
        ema = find_ema(trainer)
        with ema.applied(pl_module) if ema else nullcontext():
            if prior_items and module.tokenizer.quantizer.num_codebooks:
                data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set in fit
                module.tokenizer.prior = fit_prior(module.tokenizer, data.prior, prior_items)
            module.tokenizer.save(
                self.folder, name=self.name, discriminator=beside, dtype=self.dtype
            )


def _dtype(name: str) -> torch.dtype:
    """Return the floating-point type of a name, or raise ``ConfigError``."""
    types = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in types:
        raise unknown_name("Publish dtype", name, types)
    return types[name]


def find_ema(trainer: Trainer) -> EMA | None:
    """Return the callback that averages the weights, if there is one."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set in Trainer's constructor
        if isinstance(callback, EMA):
            return callback
    return None
