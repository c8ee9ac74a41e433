"""One sound file in and out: every change is said, every fault is one sentence."""

import numpy as np
import pytest
import soundfile
import torch

from tokenizers_vq.data.sound import check_sound_name, read_sound, write_sound
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.types import SignalSpec

MONO = SignalSpec("audio", 1, sample_rate=16000)
STEREO = SignalSpec("audio", 2, sample_rate=16000)


def written(path, channels=1, rate=16000, seconds=0.1):
    t = np.arange(round(seconds * rate)) / rate
    tones = [0.5 * np.sin(2 * np.pi * 440 * (k + 1) * t) for k in range(channels)]
    soundfile.write(path, np.stack(tones, axis=1), rate, subtype="FLOAT")
    return np.stack(tones)


def test_a_file_of_the_right_kind_is_left_as_it_is(tmp_path):
    expected = written(tmp_path / "a.wav")
    x, done = read_sound(tmp_path / "a.wav", MONO)
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-7)
    assert done == ""


def test_rate_and_channels_are_changed_and_said(tmp_path):
    path = tmp_path / "a.wav"
    tones = written(path, 2, 44100, 0.2)
    x, done = read_sound(path, MONO)
    assert done == f"{path}: resampled from 44100 to 16000 Hz, the mean of its 2 channels."
    t = np.arange(3200) / 16000
    expected = tones.mean(0)[:1] * 0 + 0.25 * (
        np.sin(2 * np.pi * 440 * t) + np.sin(2 * np.pi * 880 * t)
    )
    np.testing.assert_allclose(x[0, 200:-200].numpy(), expected[200:-200], atol=2e-3)
    both, done = read_sound(path, STEREO)
    assert both.shape == (2, 3200)
    assert done == f"{path}: resampled from 44100 to 16000 Hz."


def test_channels_are_repeated_or_the_first_ones_taken(tmp_path):
    path = tmp_path / "a.wav"
    written(path)
    x, done = read_sound(path, STEREO)
    assert torch.equal(x[0], x[1])
    assert done == f"{path}: its channel repeated to 2."
    written(path, 3)
    x, done = read_sound(path, STEREO)
    assert x.shape == (2, 1600)
    assert done == f"{path}: the first 2 of its 3 channels."
    written(path, 2)
    with pytest.raises(DataError) as error:
        read_sound(path, SignalSpec("audio", 3, sample_rate=16000))
    assert str(error.value) == (
        "read_sound: expected 1 or at least 3 channels; got 2. Mix them to that number first."
    )


def test_files_without_sound_are_refused_in_one_sentence(tmp_path):
    empty, nan, text = (tmp_path / name for name in ("empty.wav", "nan.wav", "text.wav"))
    soundfile.write(empty, np.zeros((0, 1)), 16000)
    soundfile.write(nan, np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    text.write_text("no sound")
    cases = {
        empty: f"read_sound: expected at least 1 sample in {empty}; got none. Leave empty files "
        "out.",
        nan: f"read_sound: expected finite samples in {nan}; got infinite ones or NaN. Write the "
        "file again.",
        text: f"read_sound: expected a sound that soundfile reads at {text}; got Error opening "
        f"{str(text)!r}: Format not recognised. Check the path and the format.",
    }
    for path, message in cases.items():
        with pytest.raises(DataError) as error:
            read_sound(path, MONO)
        assert str(error.value) == message


def test_what_is_written_is_read_again(tmp_path):
    x = torch.rand(2, 100) * 2 - 1
    for name in ("a.wav", "a.flac"):
        write_sound(tmp_path / name, x, 16000)
        assert soundfile.info(str(tmp_path / name)).subtype == "PCM_16"
        again, done = read_sound(tmp_path / name, STEREO)
        torch.testing.assert_close(again, x, rtol=0, atol=1.1 / 32768)
        assert done == ""
    check_sound_name(tmp_path / "a.FLAC")
    with pytest.raises(ConfigError) as error:
        check_sound_name(tmp_path / "a.png")
    assert str(error.value) == (
        "decode: expected the name of a sound that soundfile can write; got "
        f"{tmp_path / 'a.png'}. Name it .wav or .flac."
    )
