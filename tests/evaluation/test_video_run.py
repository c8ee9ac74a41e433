import argparse
import json
import re

import av
import numpy as np
import pytest
import torch
from reference.runs import timeless

from tokenizers_vq.data.synthetic_video import SyntheticVideo
from tokenizers_vq.errors import ConfigError, MissingExtraError
from tokenizers_vq.evaluation import entry, report, results, video_codecs
from tokenizers_vq.evaluation.entry import evaluate
from tokenizers_vq.evaluation.protocol import load_protocol
from tokenizers_vq.evaluation.video_run import video_dataset
from tokenizers_vq.metrics.video import change_psnr, flicker, frame_psnr
from tokenizers_vq.types import Codes

PLAIN = {
    "name": "test",
    "signal": "video",
    "size": 32,
    "frames": 5,
    "metrics": [
        {"name": "frames", "of": [{"name": "similarity", "names": ["psnr", "ssim"]}]},
        {"name": "flicker"},
        {"name": "codebook"},
    ],
    "anchors": ["identity", "first_frame", "mean_colour"],
    "codecs": {"x264": {"preset": "ultrafast"}},
    "budgets": [1, 4],
    "resamples": 20,
    "batch_size": 2,
}


class CellMean:
    """Means of 8 x 8 squares of each frame in 8 levels per channel."""

    name, sha256, prior = "cell_mean.test", "0" * 64, None

    def encode(self, x):
        mean = torch.nn.functional.avg_pool3d(x, (1, 8, 8))
        digits = ((mean + 1) / 2 * 7).round().long()
        indices = (digits * torch.tensor([1, 8, 64]).view(1, 3, 1, 1, 1)).sum(1)[..., None]
        return Codes(indices, tuple(x.shape[2:]), (512,), self.name)

    def decode(self, codes):
        digits = torch.stack([codes.indices[..., 0] // k % 8 for k in (1, 8, 64)], 1)
        return torch.nn.functional.interpolate(digits / 7 * 2 - 1, scale_factor=(1, 8, 8))


@pytest.fixture(scope="module")
def data():
    return SyntheticVideo(n=3, frames=6, size=32, seed=5)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def result(data, out):
    return entry.evaluate_and_report(CellMean(), data, load_protocol(PLAIN), out)


def kept(out, name):
    clips = [np.load(path) for path in sorted((out / "images").glob(f"*/{name}.npy"))]
    return torch.from_numpy(np.stack(clips)).movedim(-1, 1)


def test_the_numbers_are_those_of_the_clips(result, out):
    real, fake = kept(out, "original"), kept(out, "reconstruction")
    assert real.shape == (3, 3, 5, 32, 32)
    metrics = result["metrics"]
    assert metrics["psnr"]["value"] == pytest.approx(float(frame_psnr(real, fake).mean()))
    assert metrics["change_psnr"]["value"] == pytest.approx(float(change_psnr(real, fake).mean()))
    assert metrics["flicker"]["value"] == pytest.approx(float(flicker(real, fake)[0].mean()))
    assert metrics["psnr"]["n"] == 3
    assert len(metrics["psnr"]["detail"]["per_frame"]) == 5


def test_the_rates_are_those_of_the_files(result, out):
    sizes = [path.stat().st_size for path in (out / "images").glob("*/picture.tok")]
    metrics = result["metrics"]
    assert metrics["n_bytes"]["value"] == np.mean(sizes)
    assert metrics["n_bytes"]["unit"] == "byte/clip"
    assert metrics["nominal_bits"]["value"] == 5 * 16 * 9
    assert metrics["bpp"]["value"] == pytest.approx(8 * np.mean(sizes) / (5 * 32 * 32))
    assert result["throughput"]["encode_clips_per_second"] > 0
    assert result["throughput"]["definition"].startswith("clips per second")


def test_what_needs_no_tokens_stands_beside_it(result, out):
    real = kept(out, "original")
    anchors = result["anchors"]
    assert anchors["identity"]["psnr"] == 99
    assert anchors["identity"]["flicker"] == anchors["identity"]["lost_change"] == 0
    first = real[:, :, :1].expand_as(real)
    assert anchors["first_frame"]["psnr"] == pytest.approx(float(frame_psnr(real, first).mean()))
    assert anchors["first_frame"]["flicker"] == 0 < anchors["first_frame"]["lost_change"]
    later = frame_psnr(real, first)[:, 1:].mean()
    assert anchors["first_frame"]["later_psnr"] == pytest.approx(float(later))
    assert anchors["mean_colour"]["psnr"] < anchors["first_frame"]["psnr"]


def test_codecs_get_the_same_bytes_clip_by_clip(result, out):
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["x264"]["n_bytes"] <= row["n_bytes"] or not row["x264"]["fits"]
    own, best = (result["baselines"]["x264"][rule] for rule in ("own_size", "best_scale"))
    assert [point["factor"] for point in best] == [1, 4]
    assert best[1]["metrics"]["psnr"] > best[0]["metrics"]["psnr"] >= own[0]["metrics"]["psnr"]
    gain = np.mean([row["psnr"] - row["x264"]["psnr"] for row in rows])
    assert best[0]["psnr_gain"]["value"] == pytest.approx(gain)
    assert result["skipped_codecs"] == {}


def test_the_tables_speak_of_clips(result, out):
    table = (out / "table.md").read_text()
    assert "| _first frame_ | | | " in table
    assert "| bytes per clip (file) |" in table
    assert ", 3 clips; commit " in table
    page = (out / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("<article") == 3
    assert "encode / decode, clips per second" in page
    assert "tokens, 5 x 4 x 4, latent frames in a row" in page
    assert (out / "rate_distortion.svg").read_text().startswith("<svg")
    sample = report.load_samples(out)[0]
    assert sample.original.shape == sample.codecs["x264"].shape == (5, 32, 32, 3)
    assert results.read_result(out / "result.json")["data"]["unit"] == "clips"


def test_a_moving_picture_moves(result, out):
    from PIL import Image

    figure = report._figure(np.load(next((out / "images").glob("*/original.npy"))), "x", 80)
    data = re.search(r"base64,([^\"]+)", figure).group(1)
    import base64
    import io

    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert (picture.n_frames, picture.size) == (5, (32, 32))


def test_a_folder_of_videos_from_the_command_line(tmp_path, monkeypatch):
    for k in range(2):
        with av.open(str(tmp_path / f"{k}.avi"), "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for n in range(6):
                pixels = np.full((32, 48, 3), 40 * n + k, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    protocol = load_protocol({**PLAIN, "codecs": {}, "anchors": []})
    dataset, name = video_dataset(str(tmp_path), protocol)
    assert (name, dataset.ids, dataset[0].shape) == (
        tmp_path.name,
        ["0.avi", "1.avi"],
        (3, 5, 32, 32),
    )
    monkeypatch.setattr("tokenizers_vq.hub.load", lambda name: CellMean())
    monkeypatch.setattr(entry, "load_protocol", lambda name: protocol)
    parser = argparse.ArgumentParser()
    entry.add_arguments(parser)
    words = ["x", "--data", str(tmp_path), "--protocol", "test", "-o", str(tmp_path / "out")]
    assert entry.main_from_args(parser.parse_args(words)) == 0
    assert results.read_result(tmp_path / "out" / "result.json")["data"]["n"] == 2
    with pytest.raises(
        ConfigError, match="expected --tokens with a protocol of pictures; got test"
    ):
        entry.main_from_args(parser.parse_args([*words, "--tokens", "8"]))


def test_a_tokenizer_of_pictures_is_refused(data):
    picture = CellMean()
    picture.signal = argparse.Namespace(kind="image")
    with pytest.raises(ConfigError) as error:
        evaluate(picture, data, PLAIN)
    assert str(error.value) == (
        "evaluate: expected a tokenizer of videos; got one of image. Choose a protocol of its kind."
    )


def test_what_was_measured_of_videos_is_not_measured_again(result, data, out, monkeypatch):
    state = out / "state"
    evaluate(CellMean(), data, PLAIN, out, state=state)
    assert len(list(state.iterdir())) == 2
    monkeypatch.setattr(CellMean, "encode", None)
    again = evaluate(CellMean(), data, PLAIN, out, data_name=result["data"]["name"], state=state)
    assert timeless(again) == timeless(result)


def test_without_pyav_codecs_are_skipped_by_name(data, monkeypatch):
    monkeypatch.setattr(video_codecs, "find_spec", lambda name: None)
    plain = {**PLAIN, "limit": 1, "anchors": [], "budgets": [1]}
    found = evaluate(CellMean(), data, plain)
    assert found["skipped_codecs"] == {"x264": "x264: package av not found"}
    assert found["baselines"] == {}
    with pytest.raises(MissingExtraError, match="x264: package av not found"):
        evaluate(CellMean(), data, plain, strict=True)
