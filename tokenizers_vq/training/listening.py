"""What a run on sound leaves to look at and to listen to."""

import wave
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tokenizers_vq.losses.spectral import MelSpectrum, Spectrum
from tokenizers_vq.training.callbacks import save_grid

RANGE = 80.0  # dB from black to white
MELS = 80


class ReconstructionSound(Callback):
    """Write ``recon/step_<n>.png`` and ``.wav`` at each validation of sound.

    The picture has mel spectrograms of signals above those of their reconstructions; the sound has
    each signal followed by its reconstruction. Other signals are left to other callbacks.

    Args:
        folder: of the run.
        count: sounds, taken from the first validation batch.
    """

    def __init__(self, folder: str | Path, count: int = 4):
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
        """Write picture and sound of the first batch."""
        if batch_idx or batch.ndim != 3 or not trainer.is_global_zero or trainer.sanity_checking:
            return
        module: Any = pl_module
        rate = module.tokenizer.signal.sample_rate
        if rate is None:  # frames of motion, residues, shapes
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{trainer.global_step:08d}.png"
        x, x_hat = (s[: self.count].detach().float().cpu() for s in (batch, outputs))
        if x.shape[-1] > 512:
            save_grid(path, *(spectrogram(signal, rate) for signal in (x, x_hat)))
        pairs = torch.stack([x, x_hat], dim=1)  # (N, 2, C, T)
        save_wav(path.with_suffix(".wav"), pairs.permute(2, 0, 1, 3).flatten(1), rate)


def spectrogram(x: Tensor, sample_rate: int) -> Tensor:
    """Return pictures ``(N, 1, 80, frames)`` in [-1, 1] of the mel energies of ``x (N, C, T)``.

    The loudest place of each is white, all that is 80 dB weaker black; low tones are below.

    Args:
        x: sounds of more than 512 samples; the first channel is shown.
        sample_rate: Hz.
    """
    mel = MelSpectrum(Spectrum(1024, 256), sample_rate, MELS)
    level = 20 * mel(x[:, :1]).clamp(min=1e-7).log10()
    level = level - level.amax((1, 2), keepdim=True)
    return (1 + 2 * level.clamp(min=-RANGE) / RANGE).flip(1)[:, None]


def save_wav(path: str | Path, x: Tensor, sample_rate: int) -> None:
    """Write ``x (C, T)`` in [-1, 1] as a 16-bit WAV file.

    Args:
        path: of the file.
        x: the sound.
        sample_rate: Hz.
    """
    samples = (x.clamp(-1, 1) * 32767).round().to(torch.int16).T.contiguous()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(x.shape[0])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.numpy().tobytes())
