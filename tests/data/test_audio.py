"""Folders of sound: formats, rates, crops, and every kind of file that cannot be used."""

import logging

import numpy as np
import pytest
import soundfile
import torch

from tokenizers_vq.data.audio import AudioFolder
from tokenizers_vq.errors import ConfigError, DataError


def tone(seconds, rate, level=0.5, pitch=440):
    return level * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "84" / "121").mkdir(parents=True)
    soundfile.write(tmp_path / "84" / "121" / "a.flac", tone(0.5, 16000), 16000)
    soundfile.write(tmp_path / "b.wav", tone(0.5, 44100), 44100, subtype="PCM_U8")
    soundfile.write(tmp_path / "c.wav", np.stack([tone(0.1, 8000), tone(0.1, 8000) / 2], 1), 8000)
    (tmp_path / "d_broken.wav").write_bytes(b"RIFF....WAVEjunk")
    (tmp_path / "e_nothing.flac").write_bytes(b"")
    soundfile.write(tmp_path / "f_empty.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "g_silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "h_clipped.wav", np.sign(tone(0.5, 16000)), 16000)
    soundfile.write(tmp_path / "i_nan.wav", np.full(800, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "notes.txt").write_text("no sound")
    (tmp_path / ".hidden.wav").write_bytes(b"no sound")
    return tmp_path


GOOD = ["84/121/a.flac", "b.wav", "c.wav"]


def test_unusable_files_are_left_out_and_named_once(root, caplog):
    with caplog.at_level(logging.WARNING):
        sounds = AudioFolder(root, sample_rate=16000)
    assert sounds.ids == GOOD
    assert {id_: reason.partition(" (")[0] for id_, reason in sounds.skipped.items()} == {
        "d_broken.wav": "not readable",
        "e_nothing.flac": "not readable",
        "f_empty.wav": "no samples",
        "g_silent.wav": "silent",
        "h_clipped.wav": sounds.skipped["h_clipped.wav"],
        "i_nan.wav": "samples that are not finite",
    }
    assert sounds.skipped["h_clipped.wav"].endswith("of its samples clipped")
    assert len(caplog.records) == 1
    assert "left out 6 of 9 files" in caplog.text


def test_whole_files_come_at_our_rate_and_in_mono(root):
    sounds = AudioFolder(root, sample_rate=16000)
    assert [x.shape for x in sounds] == [(1, 8000), (1, 8000), (1, 1600)]
    wanted = torch.from_numpy(tone(0.5, 16000)).float()
    assert (sounds[1][0] - wanted)[200:-200].abs().max() < 0.01  # resampled, of 8 bits
    assert sounds[2].abs().max() == pytest.approx(0.375, abs=0.02)  # the mean of both channels
    assert AudioFolder(root, sample_rate=8000, channels=2)[2].shape == (2, 800)


def test_training_crops_are_random_repeatable_and_never_silent(root, caplog):
    sounds = AudioFolder(root, sample_rate=16000, seconds=0.2, train=True, gain=(-6, -1))
    assert len(sounds) == 6  # headers only
    first, again, later = sounds[0, 0], sounds[0, 0], sounds[1, 0]
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    silent = sounds[sounds.ids.index("g_silent.wav")]
    assert silent.abs().max() > 0.5
    assert "g_silent.wav: silent" in caplog.text
    for index in range(len(sounds)):
        x = sounds[index]
        assert x.shape == (1, 3200)
        assert 10 ** (-6.1 / 20) < x.abs().max() <= 10 ** (-0.9 / 20)
    short = AudioFolder(root, sample_rate=8000, seconds=0.25, exclude=["a*", "b*", "84/*"])
    assert short[0].shape == (1, 2000)  # 0.1 s, repeated


def test_splits_have_nothing_in_common(root):
    parts = [AudioFolder(root, split=split, train=True).ids for split in ("train", "val")]
    assert sorted(parts[0] + parts[1]) == AudioFolder(root, train=True).ids


def test_errors(root, tmp_path):
    with pytest.raises(DataError) as error:
        AudioFolder(root / "84" / "none")
    assert str(error.value) == (
        f"AudioFolder: expected a folder; got '{root}/84/none', which is none. "
        "Set data.root to a folder of sound files."
    )
    with pytest.raises(DataError) as error:
        AudioFolder(root, exclude=["*"])
    assert str(error.value) == (
        f"AudioFolder: expected at least one usable sound in '{root}'; got 0 files, none of them "
        "usable."
    )
    with pytest.raises(ConfigError, match="AudioFolder split: there is no 'test'"):
        AudioFolder(root, split="test")
    with pytest.raises(ConfigError) as error:
        AudioFolder(root, channels=0)
    assert str(error.value) == (
        "AudioFolder: expected a sample_rate, channels and seconds of at least one sample; got "
        "sample_rate=24000, channels=0, seconds=None."
    )
