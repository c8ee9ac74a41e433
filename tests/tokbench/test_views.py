import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from reference.word_clips import SIZE, WORDS, Templates, write_clip, write_words

from tokenizers_vq import cli, hub
from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.tokbench import run
from tokenizers_vq.tokbench.layout import read_faces, read_words
from tokenizers_vq.tokbench.run import reconstruction, score_faces, score_text
from tokenizers_vq.tokbench.views import Clips, views
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import SignalSpec


class Colour:
    """Compares faces by the colour at their first point."""

    name = "colour"

    def embed(self, picture, points, order):
        x, y = map(int, points[0])
        return picture[y - 2 : y + 3, x - 2 : x + 3].astype(float).mean((0, 1)) - 128


def test_words_of_frames_are_read_from_their_own_frames(tmp_path):
    words = read_words(write_words(tmp_path))
    assert [(word.file, word.frame, word.label) for word in words] == [
        ("clip.mp4", k, WORDS[k % 3]) for k in range(7)
    ]
    clean = score_text(words, tmp_path, lambda canvas: canvas, 256, Templates())
    assert clean["words"] == {"given": 7, "in_buckets": 7, "legible": 7}
    assert clean["videos"] == {"files": 1, "frames": 7}
    assert clean["T-ACC-templates"]["large"] == {"value": 1.0, "n": 7, "interval": None}
    blank = score_text(words, tmp_path, lambda c: Image.new("RGB", c.size), 256, Templates())
    assert blank["T-ACC-templates"]["large"]["value"] == 0
    assert blank["T-NED-templates"]["large"]["value"] == 0


def test_videos_have_buckets_and_sides_of_their_own(tmp_path):
    words = read_words(write_words(tmp_path))
    few = [
        type(words[0])(w.file, w.label, w.box, ratio, w.frame)
        for w, ratio in zip(words, (0.012, 0.025, 0.04, 0.009, 0.5, 0.02, 0.03), strict=True)
    ]
    found = score_text(few, tmp_path, lambda canvas: canvas, 256, Templates())
    counts = [found["T-ACC-templates"][name]["n"] for name in ("small", "medium", "large")]
    assert counts == [1, 2, 3]  # edges .01, .02, .03, 1
    with pytest.raises(ConfigError) as error:
        score_text(words, tmp_path, lambda canvas: canvas, 512, Templates())
    assert str(error.value) == (
        "tokbench: expected a side of 256, 480; got 512. The buckets are defined for these."
    )


def test_a_canvas_has_the_short_side_and_a_long_one_of_32(tmp_path):
    words = read_words(write_words(tmp_path))
    seen = []

    def look(canvas):
        seen.append(np.asarray(canvas))
        return canvas

    score_text(words[:1], tmp_path, look, 256, Templates())
    # 320 x 192 at 256 high is 426.67 wide: 427, and 21 black columns up to 448, 10 of them left
    assert seen[0].shape == (256, 448, 3)
    assert seen[0][:, :10].max() == 0
    assert seen[0][:, 437:].max() == 0
    assert seen[0][:, 10:437, :][:5].min() > 200


def test_windows_begin_with_the_video_and_only_annotated_ones_are_changed(tmp_path):
    words = read_words(write_words(tmp_path))
    lengths = []

    def darker(canvases):
        lengths.append(len(canvases))
        return [Image.fromarray(np.asarray(c) // (k + 1)) for k, c in enumerate(canvases)]

    chosen = [words[k] for k in (6, 1, 5)]  # windows 0..2, 3..5, and 6 alone
    found = list(views(chosen, tmp_path, Clips(darker, 3), 256))
    assert [view.found[0].frame for view in found] == [1, 5, 6]
    assert lengths == []
    levels = [view.after()[:20].mean() / view.before[:20].mean() for view in found]
    assert levels == pytest.approx([1 / 2, 1 / 3, 1], abs=0.02)
    assert lengths == [3, 3, 1]
    lengths.clear()
    for view in views([words[0], words[1]], tmp_path, Clips(darker, 3), 256):
        assert view.after().shape == view.before.shape == (*SIZE[::-1], 3)
    assert lengths == [3]  # once for both


def faces_of(folder, frames=4):
    """A clip with a red and a green square that change places halfway, as faces."""
    pictures, annotations = [], []
    for k in range(frames):
        pixels = np.full((96, 96, 3), 128, np.uint8)
        left, right = ((220, 30, 30), (30, 200, 30))[:: 1 if k < 2 else -1]
        pixels[20:60, 10:40], pixels[20:60, 56:86] = left, right
        pictures.append(Image.fromarray(pixels))
        kps = [[25, 40], [27, 40], [26, 45], [25, 50], [27, 50]]
        annotations.append([{"kps": kps, "ratio": 0.3}] if k != 1 else [])
    write_clip(folder / "face.mp4", pictures)
    entry = {"video_name": "face.mp4", "video_height": 96, "video_width": 96}
    (folder / "faces.json").write_text(json.dumps([{**entry, "frame_anns": annotations}]))
    return folder / "faces.json"


def test_faces_of_frames_are_compared_frame_by_frame(tmp_path):
    faces = read_faces(faces_of(tmp_path))
    assert [face.frame for face in faces] == [0, 2, 3]
    clean = score_faces(faces, tmp_path, lambda canvas: canvas, 256, Colour())
    assert clean["F-Sim-colour"]["large"]["value"] == pytest.approx(1, abs=1e-3)
    assert clean["videos"] == {"files": 1, "frames": 3}
    still = Clips(lambda canvases: [canvases[0]] * len(canvases), 4)
    frozen = score_faces(faces, tmp_path, still, 256, Colour())
    assert frozen["F-Sim-colour"]["large"]["value"] < 0.5  # red is not green in two of three


def test_wrong_video_annotations_are_refused(tmp_path):
    path = write_words(tmp_path)
    entries = json.loads(path.read_text())
    entries[0]["file_name"] = "clip-frame0.jpg"
    path.write_text(json.dumps(entries))
    with pytest.raises(DataError) as error:
        read_words(path)
    assert str(error.value) == (
        f"tokbench: expected a file_name that ends in -frame<N>, from 1 on, in '{path}'; got "
        "'clip-frame0.jpg'. Give TokBench's video annotation."
    )
    entries[0]["file_name"] = "clip-frame9.jpg"
    path.write_text(json.dumps(entries))
    video, identity = tmp_path / "clip.mp4", lambda canvas: canvas
    with pytest.raises(DataError) as error:
        score_text(read_words(path), tmp_path, identity, 256, Templates())
    assert str(error.value) == (
        f"tokbench: expected frame 9 of '{video}'; got 7 frames. "
        "Does the annotation belong to this video?"
    )
    video.write_text("no video")
    with pytest.raises(DataError, match=r"video: expected frames in .*; got not readable \("):
        score_text(read_words(path), tmp_path, identity, 256, Templates())
    video.unlink()
    with pytest.raises(DataError) as error:
        score_text(read_words(path), tmp_path, identity, 256, Templates())
    assert str(error.value) == (
        f"tokbench: expected the video '{video}'; got none. Check the folder of the videos."
    )


def test_a_tokenizer_of_videos_is_given_frames_together():
    config = tokenizer_config("tiny_cosmos_video", "fsq")
    video = Tokenizer.from_config(config, name="tiny_video.test").eval()
    clips = reconstruction(video, 5)
    assert clips.window == 5
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 32, 3), np.uint8)
    back = clips.change([Image.fromarray(frame) for frame in pixels])
    x = torch.from_numpy(pixels).movedim(-1, 0)[None]
    expected = ((video.decode(video.encode(x)) + 1) * 127.5).round()[0].movedim(0, -1).numpy()
    np.testing.assert_array_equal(np.stack([np.asarray(frame) for frame in back]), expected)
    with pytest.raises(ConfigError) as error:
        reconstruction(video, 0)
    assert str(error.value) == "tokbench: expected --frames of 1 or more; got 0."
    sound = SimpleNamespace(signal=SignalSpec("audio"))
    with pytest.raises(ConfigError) as error:
        reconstruction(sound)
    assert str(error.value) == (
        "tokbench: expected a tokenizer of pictures or videos; got one of audio. Choose another."
    )


def test_the_command_scores_words_of_a_video(tiny_tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "PPOCR", Templates)
    words = write_words(tmp_path, frames=2)
    folder = hub.save(tiny_tokenizer, tmp_path / "tok")
    options = ["--words", str(words), "-o", str(tmp_path / "out")]
    assert cli.main(["tokbench", str(folder), *options]) == 0
    assert "| tiny_cnn2d_fsq.test | " in capsys.readouterr().out
    (part,) = json.loads((tmp_path / "out" / "tokbench.json").read_text())["parts"]
    assert part["counts"]["words"]["legible"] == 2
