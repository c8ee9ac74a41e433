import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tokenizers_vq import cli, hub
from tokenizers_vq.configs import read_config
from tokenizers_vq.tokenizer import Tokenizer


@pytest.fixture
def model(tiny_tokenizer, tmp_path):
    return str(hub.save(tiny_tokenizer, tmp_path / "tok"))


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "cat.png"
    pixels = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_picture_becomes_a_file_and_a_picture_again(model, photo, capsys):
    assert cli.main(["encode", str(photo), "-m", model]) == 0
    tok = photo.with_suffix(".tok")
    assert f"{tok}: {tok.stat().st_size:,} bytes" in capsys.readouterr().out
    assert cli.main(["info", str(tok)]) == 0
    assert str(tok.stat().st_size) in capsys.readouterr().out
    back = photo.with_name("back.png")
    assert cli.main(["decode", str(tok), "-m", model, "-o", str(back)]) == 0
    with Image.open(back) as picture:
        assert picture.size == (50, 37)


def test_list_prints_names(capsys):
    assert cli.main(["list", "no_such*"]) == 0
    assert capsys.readouterr().out == "\n"


def test_errors_are_one_sentence_and_exit_code_2(photo, tmp_path, capsys):
    assert cli.main(["encode", str(photo), "-m", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message == (
        f"tvq encode: load: {tmp_path} has no config.json; it is not a tokenizer folder.\n"
    )
    assert cli.main(["info", str(photo)]) == 2
    assert capsys.readouterr().err.startswith("tvq info: ")
    assert cli.main(["encode", str(tmp_path / "none.png"), "-m", str(tmp_path)]) == 2


def test_paths_that_cannot_be_read_or_written_are_named(model, photo, tmp_path, capsys):
    assert cli.main(["info", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"tvq info: {tmp_path}: Is a directory. Check the path.\n"
    none = tmp_path / "none.tok"
    assert cli.main(["info", str(none)]) == 2
    assert capsys.readouterr().err == (
        f"tvq info: {none}: No such file or directory. Check the path.\n"
    )
    assert cli.main(["encode", str(photo), "-m", model]) == 0
    capsys.readouterr()
    tok = str(photo.with_suffix(".tok"))
    out = tmp_path / "none" / "x.png"
    assert cli.main(["decode", tok, "-m", model, "-o", str(out)]) == 2
    assert capsys.readouterr().err == (
        f"tvq decode: {out}: No such file or directory. Check the path.\n"
    )
    assert cli.main(["decode", tok, "-m", model, "-o", "x.bmpx"]) == 2
    assert capsys.readouterr().err == (
        "tvq decode: decode: expected the name of a picture that Pillow can write; got x.bmpx. "
        "Name it .png or .webp.\n"
    )


def test_counts_below_one_are_refused(model, tmp_path, capsys):
    assert cli.main(["eval", model, "--limit", "0"]) == 2
    assert "expected a limit of at least 1; got 0." in capsys.readouterr().err
    assert cli.main(["matrix", "--steps", "0", "-o", str(tmp_path / "matrix")]) == 2
    assert capsys.readouterr().err == (
        "tvq matrix: matrix: expected at least 1 step per cell; got 0. Raise steps.\n"
    )


def test_unknown_words_list_the_choices(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["lsit"])
    assert stop.value.code == 2
    assert "choose from" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        cli.main(["list", "--no-such-option"])
    assert stop.value.code == 2


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tokenizers_vq.demo.run_demo", stopped)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err.startswith("\ntvq demo: stopped")


def test_train_takes_overrides_and_explains_wrong_ones(capsys):
    assert cli.main(["train", "quantizer=fqs"]) == 2
    message = capsys.readouterr().err
    assert "fqs" in message
    assert "fsq" in message
    assert "Traceback" not in message


@pytest.fixture
def speaker(tmp_path):
    """A folder with an untrained tokenizer of sound."""
    torch.manual_seed(0)
    stages = {"repeat": 4, "of": {"name": "vq", "codebook_size": 16}}
    config = {**read_config("backbone", "tiny_spectrum")}
    config["quantizer"] = {"name": "residual", "code_dim": 8, "stages": stages}
    return str(hub.save(Tokenizer.from_config(config).eval(), tmp_path / "speaker"))


@pytest.fixture
def speech(tmp_path):
    path = tmp_path / "speech.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (4410, 2)), 44100)
    return path


def test_a_sound_becomes_a_file_and_a_sound_again(speaker, speech, capsys):
    tok, back = speech.with_suffix(".tok"), speech.with_name("back.flac")
    assert cli.main(["encode", str(speech), "-m", speaker, "--codebooks", "2"]) == 0
    out = capsys.readouterr().out
    kbps = 8 * tok.stat().st_size / 0.1 / 1000
    assert out.startswith(
        f"{speech}: resampled from 44100 to 16000 Hz, the mean of its 2 channels.\n"
        f"{tok}: {tok.stat().st_size:,} bytes, {kbps:.2f} kb/s, 2 of 4 codebooks, by unnamed@"
    )
    assert cli.main(["info", str(tok)]) == 0
    assert "(16, 16)" in capsys.readouterr().out
    assert cli.main(["decode", str(tok), "-m", speaker, "-o", str(back)]) == 0
    assert "0.10 s at 16000 Hz" in capsys.readouterr().out
    assert soundfile.info(str(back)).frames == 1600
    assert cli.main(["decode", str(tok), "-m", speaker, "--codebooks", "1"]) == 0
    first, both = (soundfile.read(str(path))[0] for path in (speech.with_suffix(".wav"), back))
    assert len(first) == 1600
    assert not np.allclose(first, both)


def test_faults_of_sounds_are_one_sentence(model, speaker, speech, photo, capsys):
    soundfile.write(empty := speech.with_name("empty.wav"), np.zeros((0, 1)), 16000)
    assert cli.main(["encode", str(speech), "-m", speaker]) == 0
    tok = speech.with_suffix(".tok")
    capsys.readouterr()
    cases = [
        (["encode", str(empty), "-m", speaker],
         f"encode: read_sound: expected at least 1 sample in {empty}; got none. Leave empty files "
         "out."),
        (["encode", str(speech), "-m", speaker, "--codebooks", "5"],
         "encode: encode: expected num_codebooks of 1..4 and a residual quantizer; got 5 for "
         "Residual."),
        (["encode", str(speech), "-m", model],
         "encode: encode: expected a tokenizer of audio; got tiny_cnn2d_fsq.test of image. Choose "
         "another with --model, or leave it out."),
        (["encode", str(photo), "-m", speaker],
         "encode: encode: expected a tokenizer of image; got unnamed of audio. Choose another "
         "with --model, or leave it out."),
        (["decode", str(tok), "-m", speaker, "-o", str(tok.with_suffix(".png"))],
         "decode: decode: expected the name of a sound that soundfile can write; got "
         f"{tok.with_suffix('.png')}. Name it .wav or .flac."),
    ]  # fmt: skip
    for words, message in cases:
        assert cli.main(words) == 2
        assert capsys.readouterr().err == f"tvq {message}\n"


def test_overrides_of_the_matrix_reach_it(tmp_path, monkeypatch):
    asked = {}
    (tmp_path / "matrix.md").write_text("")
    monkeypatch.setattr(
        "tokenizers_vq.matrix.run_matrix", lambda out, **options: asked.update(options)
    )
    assert cli.main(["matrix", "--overrides", "data.batch_size=2", "-o", str(tmp_path)]) == 0
    assert asked["overrides"] == ["data.batch_size=2"]
