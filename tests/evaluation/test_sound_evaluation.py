import argparse
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from reference.sounds import hide, voice

from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.errors import ConfigError, MissingExtraError
from tokenizers_vq.evaluation import entry as evaluation
from tokenizers_vq.evaluation import results, sound_codecs, sound_report, sound_run
from tokenizers_vq.evaluation.entry import evaluate
from tokenizers_vq.evaluation.protocol import load_protocol
from tokenizers_vq.evaluation.sound_evaluation import evaluate_sound, sound_dataset
from tokenizers_vq.metrics.pesq import PESQ
from tokenizers_vq.tokenizer import Tokenizer

PLAIN = {
    "name": "test",
    "signal": "audio",
    "seconds": 1.0,
    "metrics": [{"name": "si_sdr"}, {"name": "pesq", "names": ["pesq_wb"]}, {"name": "codebook"}],
    "depths": [1, 2, 64],
    "anchors": ["identity", "noise_20db"],
    "codecs": {"opus": [6, 24], "mulaw": [8]},
    "resamples": 20,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three clips of different lengths, and three files that hold none."""
    place = tmp_path_factory.mktemp("clips")
    for k, seconds in enumerate((0.8, 1.5, 1.0)):
        soundfile.write(place / f"{k}.wav", voice(seconds, seed=k)[0].numpy(), 16000)
    soundfile.write(place / "silent.wav", np.zeros(8000), 16000)
    (place / "broken.wav").write_bytes(b"RIFF, but no more")
    (place / "empty.flac").write_bytes(b"")
    return place


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    config = tokenizer_config("tiny_seanet", "rvq")
    return Tokenizer.from_config(config, name="tiny_seanet_rvq.test").eval()


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def result(folder, tokenizer, out):
    protocol = load_protocol(PLAIN)
    dataset, name = sound_dataset(str(folder), protocol)
    return evaluate(tokenizer, dataset, protocol, out, data_name=name)


def test_broken_files_are_skipped_and_counted(result):
    assert result["data"]["n"] == 3
    assert sorted(result["data"]["skipped"]) == ["broken.wav", "empty.flac", "silent.wav"]
    assert result["data"]["skipped"]["silent.wav"] == "silent"
    assert result["data"]["seconds"] == pytest.approx(2.8)


def test_the_rates_are_those_of_the_files(result, out):
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["0.wav", "1.wav", "2.wav"]
    assert [row["seconds"] for row in rows] == [0.8, 1, 1]
    bits = 8 * sum(row["Opus 6 kb/s"]["n_bytes"] for row in rows) / 2.8 / 1000
    opus = result["baselines"]["opus"][0]
    assert opus["metrics"]["kbps"]["value"] == pytest.approx(bits)
    assert opus["metrics"]["payload_kbps"]["value"] < bits
    assert result["baselines"]["mulaw"][0]["metrics"]["payload_kbps"]["value"] == 64


def test_depths_give_a_curve(result, tokenizer):
    total = tokenizer.quantizer.num_codebooks
    assert [one["codebooks"] for one in result["depths"].values()] == [1, 2, total]
    rates = [one["metrics"]["nominal_kbps"]["value"] for one in result["depths"].values()]
    per_book = rates[-1] / total
    assert rates == pytest.approx([per_book, 2 * per_book, rates[-1]])
    files = [one["metrics"]["kbps"]["value"] for one in result["depths"].values()]
    assert files == sorted(files)
    usage = [len(one["metrics"]["usage"]["detail"]["per_codebook"])
             for one in result["depths"].values()]  # fmt: skip
    assert usage == [1, 2, total]
    full = list(result["depths"].values())[-1]["metrics"]
    assert full["pesq_wb"]["value"] == result["metrics"]["pesq_wb"]["value"]
    assert "frequencies" in result["metrics"]["usage"]["detail"]
    assert "frequencies" not in full["usage"]["detail"]


def test_a_depth_is_what_the_prefix_decodes_to(result, tokenizer, folder, out):
    protocol = load_protocol(PLAIN)
    clip = protocol.prepare(sound_dataset(str(folder), protocol)[0][1])
    rate = tokenizer.signal.sample_rate
    from tokenizers_vq.functional.resampling import resample

    codes = tokenizer.encode(resample(clip, 16000, rate)[None].clamp(-1, 1))
    wanted = resample(tokenizer.decode(codes, num_codebooks=2)[0], rate, 16000)[:, :16000]
    found = soundfile.read(out / "sounds" / "01" / "02.flac", dtype="float32")[0]
    assert np.abs(found - wanted[0].clamp(-1, 1).numpy()).max() < 1e-4
    names = json.loads((out / "sounds" / "01" / "names.json").read_text())
    assert names["sounds"][:3] == ["original", "1 codebook", "2 codebooks"]


def test_anchors_and_codecs_are_measured_on_the_same_clips(result):
    anchors = result["anchors"]
    assert anchors["identity"]["pesq_wb"]["value"] == pytest.approx(4.644, abs=1e-3)
    assert anchors["identity"]["si_sdr"]["value"] == 99
    assert anchors["noise_20db"]["si_sdr"]["value"] == pytest.approx(20, abs=0.2)
    low, high = (one["metrics"]["pesq_wb"] for one in result["baselines"]["opus"])
    assert low["value"] < high["value"]
    assert low["n"] == high["n"] == 3


def test_the_result_says_what_it_depends_on(result, out):
    assert json.loads((out / "result.json").read_text()) == json.loads(json.dumps(result))
    assert result["protocol"]["hash"] == load_protocol(PLAIN).hash
    assert result["metrics"]["pesq_wb"]["detail"]["sample_rate"] == 16000
    assert {"av", "soundfile", "torchaudio"} <= set(result["environment"]["versions"])
    assert result["throughput"]["threads"] == 1
    assert result["throughput"]["encode_real_time_factor"] > 0
    assert result["tokenizer"]["parameters"] > 0
    low, high = result["metrics"]["si_sdr"]["interval"]
    assert low <= result["metrics"]["si_sdr"]["value"] <= high


def test_the_cost_of_every_metric_is_told(result):
    cost = result["metric_cost"]
    assert set(cost["cpu_seconds_per_second"]) == {"si_sdr", "pesq", "codebook"}
    assert cost["cpu_seconds_per_second"]["pesq"] > cost["cpu_seconds_per_second"]["si_sdr"] > 0


def test_efficiency_is_entropy_by_the_size_of_the_codebooks(result):
    metrics = result["metrics"]
    entropy = metrics["entropy_bits"]
    wanted = entropy["value"] / entropy["detail"]["nominal_bits"]
    assert metrics["bitrate_efficiency"]["value"] == pytest.approx(wanted)


def test_the_table_has_a_row_per_coder(result):
    table = results.sound_table(result).splitlines()
    assert [row.split("|")[1].strip() for row in table[2:]] == [
        "**tiny_seanet_rvq.test**, 1 codebook",
        "**tiny_seanet_rvq.test**, 2 codebooks",
        f"**tiny_seanet_rvq.test**, {len(result['tokenizer']['codebook_sizes'])} codebooks",
        "Opus 6 kb/s",
        "Opus 24 kb/s",
        "mu-law 8 bit, 8 kHz",
        "_identity_",
        "_noise 20db_",
    ]
    assert results.footnote(result).count("3 clips") == 1


def test_a_number_of_fewer_clips_says_so(result):
    changed = json.loads(json.dumps(result))
    changed["anchors"]["identity"]["pesq_wb"]["n"] = 2
    assert "4.644 (n 2)" in results.sound_table(changed)


def test_the_page_can_be_heard_and_is_small(result, out):
    page = sound_report.write_sound_report(out).read_text()
    assert page.count("<audio controls") == 3 * 7
    assert page.count("<svg") >= 2
    assert "Codebooks</h2>" in page
    assert "3 files could not be used (broken.wav: not readable" in page
    assert len(page) < sound_report.LIMIT


def test_clips_that_do_not_fit_are_left_out(result, out, monkeypatch):
    monkeypatch.setattr(sound_report, "LIMIT", 60_000)
    page = sound_report.write_sound_report(out, result).read_text()
    assert "3 more clips are left out to keep this page small." in page


def test_codecs_alone_need_no_tokenizer(folder, tmp_path):
    protocol = load_protocol({**PLAIN, "limit": 1, "codecs": {"opus": [6]}, "anchors": []})
    dataset, _ = sound_dataset(str(folder), protocol)
    result = evaluate_sound(None, dataset, protocol, tmp_path)
    assert (result["metrics"], result["depths"]) == ({}, {})
    assert result["tokenizer"]["name"] == "classic codecs"
    assert "| Opus 6 kb/s |" in (tmp_path / "table.md").read_text()
    assert sound_report.write_sound_report(tmp_path).is_file()


def test_a_missing_codec_or_metric_is_skipped_and_strict_fails(folder, monkeypatch, tokenizer):
    hide(monkeypatch, "pesq")
    monkeypatch.setattr(sound_codecs, "find_spec", lambda module: None)
    protocol = load_protocol({**PLAIN, "limit": 1, "depths": [], "anchors": []})
    dataset, _ = sound_dataset(str(folder), protocol)
    result = evaluate(tokenizer, dataset, protocol)
    assert result["metrics"]["pesq_wb"]["status"] == "skipped"
    reason = 'package av not found (pip install "tokenizers_vq[speech]")'
    assert result["baselines"]["opus"] == [{"status": "skipped", "reason": reason}]
    with pytest.raises(MissingExtraError) as caught:
        evaluate(tokenizer, dataset, protocol, strict=True)
    assert str(caught.value).startswith(
        "evaluate: expected every metric with strict; got 3 skipped (pesq_wb: package pesq not"
    )


def test_a_clip_without_a_score_is_null_in_its_row(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(PESQ, "score", lambda self, real, fake: {"pesq_wb": float("nan")})
    protocol = load_protocol({**PLAIN, "limit": 1, "codecs": {"opus": [6]}, "anchors": []})
    evaluate_sound(None, sound_dataset(str(folder), protocol)[0], protocol, tmp_path)
    row = json.loads((tmp_path / "samples.jsonl").read_text())
    assert row["Opus 6 kb/s"]["pesq_wb"] is None


def test_a_tokenizer_of_pictures_is_refused(folder, tiny_tokenizer):
    protocol = load_protocol(PLAIN)
    with pytest.raises(ConfigError) as caught:
        evaluate(tiny_tokenizer, sound_dataset(str(folder), protocol)[0], protocol)
    assert str(caught.value) == (
        "evaluate: expected a tokenizer of sound for protocol 'test'; got one of image. "
        "Choose a protocol of its kind."
    )


def test_data_of_another_rate_is_refused():
    protocol = load_protocol({**PLAIN, "sample_rate": 24000})
    with pytest.raises(ConfigError) as caught:
        sound_dataset("synthetic_images", protocol)
    assert str(caught.value) == (
        "data 'synthetic_images': expected sound at 24000 Hz, as protocol 'test' says; got None. "
        "Give a folder of sounds instead."
    )


def test_the_command_line_measures_sound(monkeypatch, tokenizer, folder, tmp_path, capsys):
    import tokenizers_vq.hub

    monkeypatch.setattr(tokenizers_vq.hub, "load", lambda name: tokenizer)
    plain = load_protocol({**PLAIN, "depths": [], "anchors": [], "codecs": {"opus": [6]}})
    monkeypatch.setattr(evaluation, "load_protocol", lambda name: plain)
    parser = argparse.ArgumentParser()
    evaluation.add_arguments(parser)
    words = ["any", "--data", str(folder), "--limit", "1", "-o", str(tmp_path)]
    assert evaluation.main_from_args(parser.parse_args(words)) == 0
    printed = capsys.readouterr().out
    assert "| Opus 6 kb/s |" in printed
    assert str(tmp_path / "report.html") in printed


def test_the_script_measures_codecs_alone(folder, tmp_path, capsys):
    path = Path(__file__).resolve().parents[2] / "eval" / "speech_codecs.py"
    spec = importlib.util.spec_from_file_location("eval_speech_codecs", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    words = ["--data", str(folder), "--limit", "1", "--out", str(tmp_path)]
    assert script.main(words) == 0
    assert "| Vorbis level 1 |" in capsys.readouterr().out
    assert results.read_result(tmp_path / "result.json")["protocol"]["name"] == "speech_fast"
    assert script.main([*words, "--protocol", "image_fast"]) == 2
    assert capsys.readouterr().err == (
        "speech_codecs: expected a protocol for sound; got 'image_fast'. "
        "Name speech_fast or speech_16k.\n"
    )


def test_the_ranking_script_tells_a_metric_that_ranks_from_one_that_does_not(
    folder, tmp_path, capsys
):
    path = Path(__file__).resolve().parents[2] / "eval" / "rank_speech_metrics.py"
    spec = importlib.util.spec_from_file_location("rank_speech_metrics", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    anchors = ["identity", "noise_20db", "four_bit", "low_pass_2k"]
    metrics = [{"name": "mel_distance"}, {"name": "si_sdr"}]
    plain = {**PLAIN, "limit": 1, "codecs": {"opus": [6, 12]}, "metrics": metrics}
    protocol = load_protocol({**plain, "anchors": anchors})
    evaluate_sound(None, sound_dataset(str(folder), protocol)[0], protocol, tmp_path)
    assert script.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("| mel_distance |"))
    assert row.split("|")[2:4] == [" less ", " 0 "]
    assert row.endswith("| ranks | ranks | ranks |")
    assert "| _mel_distance, earlier_ | | 0 | 0.5900 |" in printed
    assert (tmp_path / "ranking.md").read_text() == printed
    up = {"clean": 3, "opus12": 2, "opus6": 2.5, "noise20": 1, "4 bit": None, "lp 2k": 1}
    assert script.verdicts(up, higher=True) == {"codec": False, "noise": None, "band": True}
    protocol = load_protocol({**plain, "anchors": ["identity"]})
    evaluate_sound(None, sound_dataset(str(folder), protocol)[0], protocol, tmp_path)
    assert script.main([str(tmp_path)]) == 2
    assert "got none of noise20, 4 bit, lp 2k. Run" in capsys.readouterr().err


def test_the_leaderboard_has_a_row_per_coder_and_each_codec_once(result, tmp_path):
    from tokenizers_vq.evaluation.leaderboard import collect
    from tokenizers_vq.evaluation.leaderboard_page import leaderboard_page

    results.write_json(tmp_path / "a" / "result.json", result)
    again = json.loads(json.dumps(result))
    again["tokenizer"] |= {"name": "other", "sha256": "1" * 64}
    results.write_json(tmp_path / "b" / "result.json", again)
    board = collect(tmp_path)
    names = [one["tokenizer"]["name"] for one in board.groups[0]]
    assert len(board.groups) == 1
    assert [name for name in names if name.startswith("other")] == [
        "other, 1 codebook",
        "other, 2 codebooks",
        f"other, {len(result['tokenizer']['codebook_sizes'])} codebooks",
    ]
    assert names.count("Opus 6 kb/s") == 1
    assert len(names) == 9
    assert "| Opus 6 kb/s |" in results.results_table(board.groups[0])
    assert "tvq eval other --protocol test" in leaderboard_page(board)


def test_a_result_on_pictures_is_one_coder():
    assert results.coders({"metrics": {}}) == [{"metrics": {}}]


def test_a_head_without_prefixes_is_measured_whole():
    for complete, on_grid, wanted in (
        (lambda indices: indices, False, [3]),
        (lambda indices: indices.expand(-1, 3), True, [3]),
        (lambda indices: indices.expand(-1, 3), False, [1, 2, 3]),
    ):
        quantizer = SimpleNamespace(codebook_sizes=(4,) * 3, complete=complete, on_grid=on_grid)
        tokenizer = SimpleNamespace(signal=SimpleNamespace(kind="audio"), quantizer=quantizer)
        assert sound_run._depths(tokenizer, load_protocol(PLAIN)) == wanted
