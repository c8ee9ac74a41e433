"""Train as ``train.py`` does, and be killed at a given step."""

import os
import signal
import sys

from lightning.pytorch import Callback

from tokenizers_vq.training.run import main


class Signal(Callback):
    """Send this process a signal after the first batch beyond ``step`` optimizer steps."""

    def __init__(self, number: int, step: int):
        self.number, self.step = number, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step and not pl_module.between_steps:
            os.kill(os.getpid(), self.number)


if __name__ == "__main__":
    killed = f"+callbacks.kill={{_target_: __main__.Signal, number: {signal.SIGKILL}, step: 8}}"
    sys.exit(main([*sys.argv[1:], killed]))
