import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tokenizers_vq import cli, hub
from tokenizers_vq.errors import CheckpointError, DataError, MissingExtraError
from tokenizers_vq.tokbench import models, run
from tokenizers_vq.tokbench.alignment import chip, similarity, template
from tokenizers_vq.tokbench.layout import read_faces, read_words
from tokenizers_vq.tokbench.run import score_faces, score_text


class Brightness:
    """Reads the brightness of a crop as a word; compares faces by their colour."""

    name = "test"

    def read(self, crops):
        return [f"w{round(float(crop.mean()) / 10)}" for crop in crops]

    def embed(self, picture, points, order):
        face = chip(picture, points, order, 16).astype(float)
        return face.mean((0, 1)) - 100


def annotations(folder):
    """Two pictures with three words of known brightness, and a face."""
    for k, grey in enumerate((100, 200)):
        pixels = np.full((128, 256, 3), grey, np.uint8)
        pixels[0:20, 0:40] = 50
        Image.fromarray(pixels).save(folder / f"{k}.png")
    words = [
        {"file_name": "0.png", "height": 128, "width": 256, "annotations": [
            {"rec": "w10", "bbox": [100, 50, 140, 60], "ratio": 0.025},
            {"rec": "w5", "bbox": [0, 0, 40, 20], "ratio": 0.035}]},
        {"file_name": "1.png", "height": 128, "width": 256, "annotations": [
            {"rec": "w20", "bbox": [100, 50, 140, 60], "ratio": 0.05},
            {"rec": "wrong", "bbox": [100, 50, 140, 60], "ratio": 0.05},
            {"rec": "w20", "bbox": [100, 50, 140, 60], "ratio": 0.001}]},
    ]  # fmt: skip
    (folder / "words.json").write_text(json.dumps(words))
    kps = [[100, 40], [140, 40], [120, 60], [105, 80], [135, 80]]
    faces = [{"image_name": "1.png", "img_height": 128, "img_width": 256,
              "faces": [{"box": [80, 20, 160, 100], "kps": kps, "ratio": 0.3125}]}]  # fmt: skip
    (folder / "faces.json").write_text(json.dumps(faces))


def darker(canvas):
    return Image.fromarray((np.asarray(canvas) * 0.7).round().astype(np.uint8))


def test_words_that_cannot_be_read_on_the_original_do_not_count(tmp_path):
    annotations(tmp_path)
    words = read_words(tmp_path / "words.json")
    assert len(words) == 5
    clean = score_text(words, tmp_path, lambda canvas: canvas, 256, Brightness())
    assert clean["words"] == {"given": 5, "in_buckets": 4, "legible": 3}
    assert clean["T-ACC-test"]["mean"] == 1
    assert clean["T-ACC-test"]["large"]["n"] == 1
    dark = score_text(words, tmp_path, darker, 256, Brightness())
    assert dark["T-ACC-test"]["mean"] == 0
    # w10 -> w7, w5 -> w4 (35 rounds to even), w20 -> w14
    near = [dark["T-NED-test"][k]["value"] for k in ("small", "medium", "large")]
    assert near == pytest.approx([1 / 3, 1 / 2, 1 / 3], abs=1e-9)


def test_faces_are_compared_at_the_same_points(tmp_path):
    annotations(tmp_path)
    faces = read_faces(tmp_path / "faces.json")
    assert faces[0].order == "eyes_nose_mouth"
    clean = score_faces(faces, tmp_path, lambda canvas: canvas, 256, Brightness())
    assert clean["F-Sim-test"]["large"]["value"] == pytest.approx(1)
    assert clean["F-Sim-test"]["mean"] is None  # two buckets are empty
    black = score_faces(faces, tmp_path, lambda c: Image.new("RGB", c.size), 256, Brightness())
    assert black["F-Sim-test"]["large"]["value"] == pytest.approx(-1)


def test_a_chip_has_its_points_on_the_template():
    points = ((213, 123), (187, 125), (123, 123), (149, 125), (171, 170))
    way = similarity(np.array(points, float), template("eye_corners_nose", 150))
    moved = np.array(points) @ way[:, :2].T + way[:, 2]
    assert np.abs(moved - template("eye_corners_nose", 150)).max() < 6
    angle = np.deg2rad(30)
    turn = 2 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = np.array([[0.0, 0], [3, 0], [1, 2]])
    found = similarity(source, source @ turn.T + [5, -1])
    np.testing.assert_allclose(found, np.column_stack([turn, [5, -1]]), atol=1e-9)


def test_a_chip_shows_the_eyes_where_they_belong():
    pixels = np.zeros((200, 200, 3), np.uint8)
    eyes = ((70.0, 80.0), (130.0, 80.0))
    for x, y in eyes:
        pixels[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] = 255
    face = chip(pixels, (*eyes, (100, 110), (80, 140), (120, 140)), "eyes_nose_mouth")
    for x, y in template("eyes_nose_mouth", 150):
        assert face[round(y), round(x)].min() > 200
    assert face.mean() < 20


def test_wrong_annotations_are_refused(tmp_path):
    annotations(tmp_path)
    cases = {
        "none.json": (None, "tokbench: expected an annotation file; got '{}'. Check the path."),
        "object.json": ("{}", "tokbench: expected a list of pictures in '{}'; got dict. "
                              "Give TokBench's annotation file."),
        "keys.json": ('[{"file_name": "a"}]', "tokbench: expected 'annotations' in every entry of "
                      "'{}'; got ['file_name']. Give TokBench's annotation file."),
    }  # fmt: skip
    for name, (text, said) in cases.items():
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        with pytest.raises(DataError) as error:
            read_words(path)
        assert str(error.value) == said.format(path)
    (tmp_path / "0.png").unlink()
    with pytest.raises(DataError) as error:
        score_text(read_words(tmp_path / "words.json"), tmp_path, darker, 256, Brightness())
    assert str(error.value) == (
        f"tokbench: expected the picture '{tmp_path / '0.png'}'; got none. "
        "Check the folder of the images."
    )
    with pytest.raises(DataError) as error:
        score_text(read_words(tmp_path / "words.json")[4:], tmp_path, darker, 256, Brightness())
    assert "expected words with a ratio of 0.02 to 1.0; got none of 1." in str(error.value)


def test_models_that_are_not_here_name_their_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as error:
        models.PPOCR()
    assert str(error.value) == (
        "package rapidocr-onnxruntime not found; pip install 'tokenizers-vq[ocr]'"
    )
    with pytest.raises(MissingExtraError) as error:
        models.Dlib()
    assert str(error.value) == (
        "package face_recognition_models not found; pip install 'tokenizers-vq[face]'"
    )
    (tmp_path / "m").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="expected a model whose sha256 starts with aa; got"):
        models._verified(tmp_path / "m", "aa")


def test_the_command_scores_a_tokenizer(tiny_tokenizer, tmp_path, monkeypatch, capsys):
    annotations(tmp_path)
    monkeypatch.setattr(run, "PPOCR", Brightness)
    monkeypatch.setattr(run, "Dlib", Brightness)
    folder = hub.save(tiny_tokenizer, tmp_path / "tok")
    words = ["tokbench", str(folder), "-o", str(tmp_path / "out")]
    files = ["--words", str(tmp_path / "words.json"), "--faces", str(tmp_path / "faces.json")]
    assert cli.main([*words, *files]) == 0
    assert "| tiny_cnn2d_fsq.test | " in capsys.readouterr().out
    data = json.loads((tmp_path / "out" / "tokbench.json").read_text())
    words_of, faces_of = (part["coders"]["tiny_cnn2d_fsq.test"] for part in data["parts"])
    assert words_of["T-NED-test small"]["n"] == 1
    assert faces_of["F-Sim-test large"]["n"] == 1
    assert cli.main(words) == 2
    assert capsys.readouterr().err == (
        "tvq tokbench: tokbench: expected --words or --faces; got neither. Give one.\n"
    )


def test_drawn_words_are_legible_in_the_layout_of_tokbench(tmp_path):
    """A rendered word, its box and ratio: what a pack of rendered text looks like."""
    picture = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=24)
    box = draw.textbbox((20, 40), "Tokens", font=font)
    draw.text((20, 40), "Tokens", fill="black", font=font)
    picture.save(tmp_path / "a.png")
    ratio = max(box[2] - box[0], box[3] - box[1]) / len("Tokens") / 256
    entry = {"file_name": "a.png", "annotations": [{"rec": "Tokens", "bbox": box, "ratio": ratio}]}
    (tmp_path / "w.json").write_text(json.dumps([entry]))

    class Ink:
        name = "ink"

        def read(self, crops):
            return ["Tokens" if crop.min() < 60 and crop.max() > 200 else "" for crop in crops]

    words = read_words(tmp_path / "w.json")
    found = score_text(words, tmp_path, lambda canvas: canvas, 256, Ink())
    assert found["words"]["legible"] == 1
    gone = score_text(words, tmp_path, lambda c: Image.new("RGB", c.size), 256, Ink())
    assert gone["T-NED-ink"]["large"]["value"] == 0
