"""A run on generated voices ends with something to look at and to listen to."""

import wave

import numpy as np
import torch

from tokenizers_vq.training.listening import save_wav, spectrogram
from tokenizers_vq.training.run import compose, run


def test_a_wav_file_has_the_samples(tmp_path):
    x = torch.tensor([[0.0, 0.5, -1.0, 2.0], [0.25, 0.0, 0.0, 0.0]])
    save_wav(tmp_path / "a.wav", x, 8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 4)
        samples = np.frombuffer(file.readframes(4), np.int16).reshape(4, 2)
    assert samples.T.tolist() == [[0, 16384, -32767, 32767], [8192, 0, 0, 0]]


def test_a_high_tone_is_above_a_low_one():
    t = torch.arange(8000) / 16000
    tones = torch.stack([torch.sin(2 * torch.pi * pitch * t)[None] for pitch in (200, 6000)])
    pictures = spectrogram(tones, 16000)
    assert pictures.shape == (2, 1, 80, 32)
    assert pictures.max() == 1
    assert pictures.min() >= -1
    rows = pictures.mean(-1)[:, 0].argmax(1)
    assert rows[0] > rows[1]


def test_a_run_writes_both(tmp_path):
    words = ["experiment=tiny_encodec_24k", "trainer.max_steps=2", f"outputs={tmp_path}"]
    result = run(compose([*words, "trainer.val_check_interval=2", "~logger.tensorboard"]))
    names = sorted(path.name for path in (result.folder / "recon").iterdir())
    assert names == ["step_00000002.png", "step_00000002.wav"]
