import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.word_clips import Templates, drawn, write_words

from tokenizers_vq import cli, hub
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.leaderboard import collect
from tokenizers_vq.evaluation.leaderboard_page import leaderboard_page
from tokenizers_vq.tokbench import run

ROOT = Path(__file__).resolve().parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "eval" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments_of(*options):
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args(["x", *options])


class Reader(Templates):
    packages, sha256 = ("numpy",), "abcd"


class Pixels:
    """Compares faces by the pixels around their first two points."""

    name, packages, sha256 = "pixels", ("numpy", "no-such-package"), None

    def embed(self, picture, points, order):
        (x0, y), (x1, _) = points[:2]
        return picture[int(y) - 20 : int(y) + 20, int(x1) : int(x0)].astype(float).ravel() - 128


def pack(folder):
    """Three pictures of a word each in ``pack``, two of them in one bucket, and two faces."""
    folder.mkdir()
    words, faces = [], []
    for k, (word, ratio) in enumerate((("Tokens", 0.025), ("Frames", 0.05), ("Pixels", 0.05))):
        picture, box = drawn(word, 30, 60)
        picture.save(folder / f"{k}.png")
        found = [{"rec": word, "bbox": box, "ratio": ratio}]
        words.append({"file_name": f"{k}.png", "annotations": found})
        kps = [[110, 75], [40, 75], [70, 80], [45, 90], [100, 90]]
        found = [{"box": [30, 50, 130, 100], "kps": kps, "ratio": 0.4}]
        faces.append({"image_name": f"{k}.png", "faces": found})
    (folder / "words.json").write_text(json.dumps(words))
    (folder / "faces.json").write_text(json.dumps(faces))
    return folder


@pytest.fixture
def models(monkeypatch):
    monkeypatch.setattr(run, "PPOCR", Reader)
    monkeypatch.setattr(run, "Dlib", Pixels)
    monkeypatch.setattr(run, "reconstruction", lambda tokenizer, window: lambda canvas: canvas)


def test_a_run_is_one_json_with_all_that_its_numbers_depend_on(
    tiny_tokenizer, tmp_path, models, capsys
):
    data, out = pack(tmp_path / "pack"), tmp_path / "results" / "tok"
    folder = hub.save(tiny_tokenizer, tmp_path / "tok")
    files = ["--words", str(data / "words.json"), "--faces", str(data / "faces.json")]
    assert cli.main(["tokbench", str(folder), *files, "--limit", "2", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    text = (out / "tokbench.json").read_text()
    assert str(tmp_path) not in text  # no paths of this machine
    found = results.read_result(out / "tokbench.json")
    assert (found["kind"], found["seed"]) == ("tokbench", 0)
    assert found["tokenizer"] == {"name": "tiny_cnn2d_fsq.test", "sha256": tiny_tokenizer.sha256}
    assert found["command"] == (
        "tvq tokbench tiny_cnn2d_fsq.test --words words.json --faces faces.json --side 256 "
        "--limit 2"
    )
    assert run.options_of(arguments_of("--frames", "5")) == "--side 256 --frames 5"
    assert {"commit", "versions", "python"} <= found["environment"].keys()
    words, faces = found["parts"]
    assert words["protocol"]["name"] == "tokbench_words_256"
    assert words["protocol"]["config"]["model"] == {"name": "templates", "sha256": "abcd"}
    assert words["protocol"]["config"]["buckets"]["small"] == [0.02, 0.03]
    assert (words["data"]["name"], words["data"]["n"], words["data"]["unit"]) == (
        "pack", 2, "pictures",
    )  # fmt: skip
    assert words["packages"] == {"numpy": np.__version__}
    assert faces["packages"]["no-such-package"] is None
    assert words["counts"] == {"words": {"given": 2, "in_buckets": 2, "legible": 2}}
    scores = words["coders"]["tiny_cnn2d_fsq.test"]
    assert [scores[f"T-ACC-templates {k}"]["n"] for k in ("small", "medium", "large")] == [1, 0, 1]
    assert scores["T-ACC-templates medium"]["reason"] == "none of the words is medium"
    assert scores["T-ACC-templates mean"]["status"] == "skipped"
    assert "Protocol tokbench_words_256@" in printed
    assert (out / "tokbench.md").read_text().startswith("| | T-ACC-templates small (n = 1) |")


def test_other_words_pictures_or_models_are_other_results(tmp_path, models, monkeypatch):
    data = pack(tmp_path / "pack")
    given = ["--words", str(data / "words.json")]

    def measured(*options):
        arguments = arguments_of(*given, *options)
        (found,) = run.measured(arguments, {"same": lambda canvas: canvas})
        return found["protocol"]["hash"], found["data"]["sha256"], found["data"]["ids_sha256"]

    first = measured()
    assert measured() == first
    assert measured("--side", "512")[0] != first[0]
    assert measured("--limit", "2")[2] != first[2]
    Image.new("RGB", (8, 8)).save(data / "2.png")
    changed = measured()
    assert (changed[0], changed[2]) == (first[0], first[2])
    assert changed[1] != first[1]
    monkeypatch.setattr(Reader, "sha256", "other")
    assert measured()[0] != first[0]


def test_the_ranking_says_per_bucket_whether_it_holds(tmp_path, monkeypatch, capsys):
    ranker = script("rank_text_and_faces")
    monkeypatch.setattr(ranker, "PPOCR", Reader)
    monkeypatch.setattr(ranker, "Dlib", Pixels)
    data, out = pack(tmp_path / "pack"), tmp_path / "results" / "ranking"
    files = ["--words", str(data / "words.json"), "--faces", str(data / "faces.json")]
    code = ranker.main([*files, "--out", str(out)])
    found = results.read_result(out / "tokbench.json")
    assert found["tokenizer"] is None
    assert list(found["parts"][0]["coders"]) == ["clean", "JPEG q50", "JPEG q10", "quarter size"]
    assert found["ranks"].keys() == {
        f"T-{kind}-templates {k}" for kind in ("ACC", "NED") for k in ("small", "large")
    } | {"F-Sim-pixels large"}
    assert found["ranks"]["F-Sim-pixels large"]
    assert not found["ranks"]["T-ACC-templates large"]  # big words survive JPEG: a tie
    assert code == 1
    page = (out / "tokbench.md").read_text()
    assert "not in: T-ACC-templates" in page
    assert "not in: T-ACC-templates" in capsys.readouterr().out
    assert ranker.main(["--words", str(tmp_path / "none.json")]) == 2
    assert "tokbench: expected an annotation file" in capsys.readouterr().err


def test_the_leaderboard_shows_a_tokenizer_beside_damage_to_the_same_pictures(
    tiny_tokenizer, tmp_path, models, monkeypatch
):
    ranker = script("rank_text_and_faces")
    monkeypatch.setattr(ranker, "PPOCR", Reader)
    data, out = pack(tmp_path / "pack"), tmp_path / "results"
    words = ["--words", str(data / "words.json")]
    ranker.main([*words, "--out", str(out / "ranking")])
    folder = hub.save(tiny_tokenizer, tmp_path / "tok")
    assert cli.main(["tokbench", str(folder), *words, "-o", str(out / "tok")]) == 0
    (group,) = collect(out).groups
    names = ["clean", "JPEG q50", "JPEG q10", "quarter size", "tiny_cnn2d_fsq.test"]
    assert [one["tokenizer"]["name"] for one in group] == names
    page = leaderboard_page(collect(out))
    assert "href='#r0-0-T-ACC-templates-large'" in page
    assert "<tr id='r0-0-T-ACC-templates-large'>" in page  # ids hold no spaces
    table = results.results_table(group)
    assert "| tokenizer | T-ACC-templates small | T-ACC-templates large | T-NED" in table
    assert table.splitlines()[2].startswith("| clean | 1 | 1 | 1 | 1 |")  # the best first


def test_videos_say_how_many_and_have_no_interval(tiny_tokenizer, tmp_path, models):
    (tmp_path / "clips").mkdir()
    words = write_words(tmp_path / "clips", frames=2)
    arguments = arguments_of("--words", str(words))
    (found,) = run.measured(arguments, {"same": lambda canvas: canvas})
    assert found["protocol"]["name"] == "tokbench_words_video_256"
    assert (found["data"]["unit"], found["data"]["n"]) == ("clips", 1)
    assert found["counts"]["videos"] == {"files": 1, "frames": 2}
    assert found["coders"]["same"]["T-NED-templates large"]["interval"] is None


def test_faces_become_smaller_with_their_points(tmp_path, capsys):
    smaller = script("smaller_faces")
    data = pack(tmp_path / "pack")
    out = tmp_path / "smaller"
    options = [str(data / "faces.json"), "--shares", "1", "0.5", "--limit", "2", "-o", str(out)]
    assert smaller.main(options) == 0
    entries = json.loads((out / "face_meta.json").read_text())
    assert [entry["faces"][0]["ratio"] for entry in entries] == [0.4, 0.4, 0.2, 0.2]
    # the photograph keeps its pixels, and the points lie on the same ones
    photo = np.asarray(Image.open(data / "0.png"))
    half = np.asarray(Image.open(out / entries[2]["image_name"]))
    assert half.shape == (640, 640, 3)
    left, top = np.array(entries[2]["faces"][0]["kps"][0]) - (110, 75)
    assert np.array_equal(half[top : top + 192, left : left + 320], photo)
    assert entries[2]["faces"][0]["box"] == [30 + left, 50 + top, 130 + left, 100 + top]
    assert not np.array_equal(entries[2]["faces"][0]["box"], entries[3]["faces"][0]["box"])
    assert smaller.main([str(data / "faces.json"), "--shares", "2"]) == 2
    assert "expected shares above 0, up to 1; got [2.0]" in capsys.readouterr().err
