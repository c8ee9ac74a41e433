import argparse
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from reference.patch_mean import PROTOCOL, Identity, PatchMean, Pictures

from tokenizers_vq.bitstream import from_bytes
from tokenizers_vq.data.transforms import to_signal, to_uint8
from tokenizers_vq.errors import BitstreamError, ConfigError, DataError, MissingExtraError
from tokenizers_vq.evaluation import entry as evaluation
from tokenizers_vq.evaluation import protocol, results
from tokenizers_vq.evaluation.entry import dataset_from, evaluate
from tokenizers_vq.evaluation.image_run import ImageRun


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def result(out):
    return evaluate(PatchMean(), Pictures(), PROTOCOL, out)


def test_identity_is_perfect_through_uint8():
    protocol = {**PROTOCOL, "codecs": {}, "anchors": []}
    scores = evaluate(Identity(), Pictures(), protocol)["metrics"]
    assert scores["psnr"]["value"] == 99.0
    assert scores["psnr"]["detail"] == {"identical_images_counted_as_99_dB": 3}
    assert scores["ssim"]["value"] == pytest.approx(1, abs=1e-12)


def test_a_grey_ramp_survives_the_way_there_and_back():
    ramp = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_signal(ramp)), ramp)


def test_psnr_is_that_of_the_pictures(result, out):
    values = []
    for folder in sorted((out / "images").iterdir()):
        a, b = (
            np.asarray(Image.open(folder / f"{name}.png")).astype(float)
            for name in ("original", "reconstruction")
        )
        values.append(10 * math.log10(255**2 / ((a - b) ** 2).mean()))
    assert result["metrics"]["psnr"]["value"] == pytest.approx(np.mean(values), abs=1e-9)
    low, high = result["metrics"]["psnr"]["interval"]
    assert low <= np.mean(values) <= high


def test_bytes_are_those_of_the_files_and_they_decode(result, out):
    files = sorted((out / "images").glob("*/picture.tok"))
    sizes = [path.stat().st_size for path in files]
    metrics = result["metrics"]
    assert metrics["n_bytes"]["value"] == np.mean(sizes)
    assert metrics["bpp"]["value"] == pytest.approx(8 * np.mean(sizes) / 64**2)
    assert metrics["nominal_bits"]["value"] == 64 * 9
    assert metrics["nominal_bpp"]["value"] == 64 * 9 / 64**2
    tokens = np.load(files[0].parent / "tokens.npy")
    assert np.array_equal(from_bytes(files[0].read_bytes(), None).indices[0].numpy(), tokens)


def test_the_result_says_what_it_depends_on(result, out):
    assert json.loads((out / "result.json").read_text()) == json.loads(json.dumps(result))
    assert result["schema"] == results.SCHEMA
    assert result["protocol"]["name"] == "test"
    assert result["data"] == {**result["data"], "name": "Pictures", "sha256": "d" * 64, "n": 3}
    assert {"commit", "versions", "device", "threads"} <= set(result["environment"])
    assert result["throughput"]["encode_images_per_second"] > 0
    assert "no entropy coding" in result["throughput"]["definition"]


def test_samples_have_a_line_per_picture(result, out):
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["p/0", "p/1", "p/2"]
    assert np.mean([row["psnr"] for row in rows]) == result["metrics"]["psnr"]["value"]
    assert set(rows[0]["webp"]) == {"psnr", "n_bytes", "quality", "scale", "fits"}


def test_codecs_get_the_bytes_of_each_file(result, out):
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        for codec in ("jpeg", "webp"):
            assert row[codec]["n_bytes"] <= row["n_bytes"] or not row[codec]["fits"]
    for codec, rules in result["baselines"].items():
        assert [point["factor"] for point in rules["best_scale"]] == [0.5, 1, 4]
        assert [point["factor"] for point in rules["own_size"]] == [1]
        gain = np.mean([row["psnr"] - row[codec]["psnr"] for row in rows])
        assert rules["best_scale"][1]["psnr_gain"]["value"] == pytest.approx(gain)
        psnr = [point["metrics"]["psnr"] for point in rules["best_scale"]]
        assert psnr == sorted(psnr)


def test_anchors_are_measured_in_the_same_run(result):
    anchors = result["anchors"]
    assert anchors["identity"]["psnr"] == 99
    assert anchors["jpeg_q75"]["psnr"] > result["metrics"]["psnr"]["value"]
    assert "usage" not in anchors["identity"]


def test_batch_size_changes_no_number(result):
    again = evaluate(PatchMean(), Pictures(), {**PROTOCOL, "batch_size": 1})
    for name, score in result["metrics"].items():
        assert again["metrics"][name]["value"] == pytest.approx(score["value"], rel=1e-12)


def test_pictures_of_several_sizes_are_measured_at_their_own():
    protocol = {**PROTOCOL, "codecs": {}, "batch_size": 3}
    result = evaluate(PatchMean(), Pictures(sizes=(64, 48, 48)), protocol)
    assert result["metrics"]["psnr"]["n"] == 3
    assert result["metrics"]["tokens"]["value"] == (64 + 36 + 36) / 3


def test_limit_takes_the_same_pictures_every_time():
    protocol = {**PROTOCOL, "codecs": {}, "limit": 2}
    first, second = (evaluate(PatchMean(), Pictures(8), protocol)["data"] for _ in range(2))
    assert first == second
    assert first["n"] == 2


def test_a_metric_without_its_weights_is_skipped_and_strict_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("TVQ_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    metrics = [*PROTOCOL["metrics"], {"name": "fidelity", "extractor": "inception"}]
    protocol = {**PROTOCOL, "codecs": {}, "anchors": [], "metrics": metrics}
    result = evaluate(PatchMean(), Pictures(), protocol)
    reason = "weights inception-2015-12-05 (6726825d...) not found"
    assert result["metrics"]["rFID"]["status"] == "skipped"
    assert result["metrics"]["rFID"]["reason"] == reason
    with pytest.raises(MissingExtraError) as caught:
        evaluate(PatchMean(), Pictures(), protocol, strict=True)
    assert str(caught.value) == (
        f"evaluate: expected every metric with strict; got 2 skipped (rFID: {reason}; rKID: "
        f"{reason}). Give the weights, or leave strict out."
    )


def test_a_file_that_decodes_to_other_indices_is_an_error(monkeypatch):
    import tokenizers_vq.bitstream

    right = tokenizers_vq.bitstream.from_bytes
    monkeypatch.setattr(
        tokenizers_vq.bitstream,
        "from_bytes",
        lambda data, prior: SimpleNamespace(indices=right(data, prior).indices + 1),
    )
    with pytest.raises(BitstreamError) as caught:
        evaluate(PatchMean(), Pictures(), PROTOCOL)
    assert str(caught.value) == (
        "evaluate: expected the indices a .tok file was made from; got others. "
        "Report this with the item: its size cannot be trusted."
    )


def test_an_empty_data_set_is_an_error():
    with pytest.raises(DataError) as caught:
        evaluate(PatchMean(), Pictures(0), PROTOCOL)
    assert str(caught.value) == (
        "evaluate: expected at least one picture; got none. Check the folder."
    )


def test_data_sets_come_from_folders_and_from_names(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    dataset, name = dataset_from(str(tmp_path))
    assert (dataset.ids, name) == (["a.png"], tmp_path.name)
    assert len(dataset_from("synthetic_images")[0].ids) == 32
    with pytest.raises(ConfigError) as caught:
        dataset_from("folder")
    assert str(caught.value) == (
        "data 'folder': expected a data set without open values; got ${data.root}. "
        "Give the folder of pictures instead."
    )
    with pytest.raises(ConfigError) as caught:
        evaluation._instantiate({"_target_": "os.system", "command": "true"}, "x")
    assert str(caught.value) == "data 'x': expected a class of tokenizers_vq.data; got os."


def test_the_command_line_writes_a_report_and_prints_tables(monkeypatch, tmp_path, capsys):
    import tokenizers_vq.hub

    monkeypatch.setattr(tokenizers_vq.hub, "load", lambda name: PatchMean())
    monkeypatch.setattr(evaluation, "dataset_from", lambda name: (Pictures(2), name))
    monkeypatch.setattr(evaluation, "load_protocol", lambda name: protocol.Protocol(**PROTOCOL))
    parser = argparse.ArgumentParser()
    evaluation.add_arguments(parser)
    arguments = parser.parse_args(["any", "--data", "mine", "--limit", "1", "-o", str(tmp_path)])
    assert evaluation.main_from_args(arguments) == 0
    printed = capsys.readouterr().out
    assert "| JPEG | best scale" in printed
    assert str(tmp_path / "report.html") in printed
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_tokenizer_is_compared_at_equal_psnr(result):
    for codec, one in result["rate_differences"].items():
        points = result["baselines"][codec]["best_scale"]
        psnr = result["metrics"]["psnr"]["value"]
        reached = min(p["metrics"]["psnr"] for p in points) <= psnr
        reached &= psnr <= max(p["metrics"]["psnr"] for p in points)
        assert (one["percent"] is not None) == reached
    assert set(result["rate_differences"]) == {"jpeg", "webp"}


def test_a_codec_of_known_curve_gives_a_known_difference(result):
    run = ImageRun(PatchMean(), Pictures(), evaluation.load_protocol(PROTOCOL))
    for factor, (size, psnr) in {0.5: (50, 20.0), 1: (100, 26.0), 4: (400, 38.0)}.items():
        key = ("jpeg", "best_scale", factor)
        for one in (key, ("webp", *key[1:])):
            run.baselines.coded[one].counts["n_bytes"] = [size] * 3
            run.baselines.coded[one].metrics[0][1].values["psnr"] = [psnr] * 3
    found = run.baselines.rate_differences([300, 300, 300], [26.0, 26.0, 26.0])
    assert found["jpeg"]["percent"] == pytest.approx(200)
    assert results.rate_table({"rate_differences": found}).splitlines()[2] == (
        "| JPEG | +200.0 % | +200.0 .. +200.0 % |"
    )
    found = run.baselines.rate_differences([300, 300, 300], [40.0, 40.0, 40.0])
    assert found["jpeg"]["percent"] is None
    assert "its curve does not reach that PSNR" in results.rate_table({"rate_differences": found})
