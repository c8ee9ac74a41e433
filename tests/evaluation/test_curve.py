"""Curves over numbers of tokens: each point is the evaluation with that many."""

import argparse
import json
from xml.etree import ElementTree

import pytest
import torch
from reference.patch_mean import PROTOCOL, Pictures

from tokenizers_vq.configs import read_config
from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.data.transforms import to_signal, to_uint8
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.evaluation.curve import curve_picture, measure_curve
from tokenizers_vq.evaluation.entry import add_arguments, main_from_args
from tokenizers_vq.evaluation.protocol import load_protocol
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.prior import fit_prior

PLAIN = load_protocol({**PROTOCOL, "codecs": {"jpeg": {}}, "anchors": []})
SOUNDS = "speech_16k"
FSQ = {"name": "fsq", "levels": [8, 8]}


@pytest.fixture(scope="module")
def tok():
    torch.manual_seed(0)
    config = {**read_config("backbone", "tiny_one_d_piece"), "quantizer": FSQ}
    return Tokenizer.from_config(config, name="tiny.curve").eval()


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("curve")


@pytest.fixture(scope="module")
def curve(tok, out):
    return measure_curve(tok, Pictures(), [16, 2, 2, 8], PLAIN, out)


def test_points_are_measured_with_their_own_tokens(tok, curve):
    assert [point["num_tokens"] for point in curve["points"]] == [2, 8, 16]
    real = torch.stack([PLAIN.prepare(Pictures()[k]) for k in range(3)])
    for point in curve["points"]:
        count = point["num_tokens"]
        assert point["metrics"]["tokens"] == count
        assert point["metrics"]["nominal_bits"] == 6 * count
        fake = to_uint8(tok.decode(tok.encode(to_signal(real), num_tokens=count)))
        errors = (fake.double() - real.double()).square().mean((1, 2, 3))
        psnr = (10 * (255**2 / errors).log10()).mean()
        assert point["metrics"]["psnr"] == pytest.approx(float(psnr), abs=1e-6)
        assert point["codecs"]["jpeg"] is None  # no JPEG is as small as these tokens
    sizes = [point["metrics"]["n_bytes"] for point in curve["points"]]
    assert sizes[0] < sizes[1] < sizes[2]


def test_a_curve_is_written_whole(curve, out):
    assert json.loads((out / "curve.json").read_text()) == json.loads(json.dumps(curve))
    assert curve["tokenizer"]["name"] == "tiny.curve"
    one = json.loads((out / "tokens_0008" / "result.json").read_text())
    assert one["tokenizer"]["name"] == "tiny.curve[:8]"
    assert curve["protocol"] == one["protocol"]
    picture = ElementTree.fromstring((out / "curve.svg").read_text())
    words = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert words[:2] == ["PSNR over bytes of tiny.curve", "tiny.curve"]
    assert "JPEG" not in words
    points = [{**point, "codecs": {"jpeg": 20.0}} for point in curve["points"]]
    assert "JPEG" in curve_picture({**curve, "points": points})
    rows = (out / "curve.md").read_text().splitlines()
    assert [row.split(" | ")[0] for row in rows[2:5]] == ["| 2", "| 8", "| 16"]


def test_files_of_fewer_tokens_go_through_the_entropy_coder(tok):
    plain = measure_curve(tok, Pictures(), [5], PLAIN)["points"][0]["metrics"]
    tok.prior = fit_prior(tok, SyntheticImages(2, 64, seed=1), items=2)
    coded = measure_curve(tok, Pictures(), [5], PLAIN)["points"][0]["metrics"]
    tok.prior = None
    assert coded["tokens"] == 5
    assert coded["psnr"] == plain["psnr"]
    assert plain["n_bytes"] == plain["fixed_bytes"] == coded["fixed_bytes"]


def test_numbers_that_do_not_exist_are_named(tok):
    with pytest.raises(ShapeError, match=r"expected num_tokens of 1\.\.16; got 17\."):
        measure_curve(tok, Pictures(), [4, 17], PLAIN)
    config = {**read_config("backbone", "tiny_cnn2d"), "quantizer": FSQ}
    grid = Tokenizer.from_config(config, name="tiny.grid")
    with pytest.raises(ConfigError) as error:
        measure_curve(grid, Pictures(), [4], PLAIN)
    assert str(error.value) == (
        "curve: expected numbers of tokens and a tokenizer with sequences; got [4] and tiny.grid. "
        "Evaluate it without numbers of tokens."
    )


def test_the_command_writes_a_curve(tok, tmp_path, capsys):
    tok.save(tmp_path / "tok")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [str(tmp_path / "tok"), "--data", "synthetic_images", "--protocol", "image_matrix"]
    words += ["--limit", "2", "--tokens", "4", "16", "-o", str(tmp_path / "out")]
    assert main_from_args(parser.parse_args(words)) == 0
    assert "| 16 |" in capsys.readouterr().out
    assert (tmp_path / "out" / "curve.svg").exists()
    words[words.index("image_matrix")], words[2] = SOUNDS, "synthetic_audio"
    with pytest.raises(ConfigError) as error:
        main_from_args(parser.parse_args(words))
    assert str(error.value) == (
        f"eval: expected --tokens with a protocol of pictures; got {SOUNDS}, of sounds. Leave "
        "--tokens out."
    )
