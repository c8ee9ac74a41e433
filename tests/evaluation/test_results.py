import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from reference.patch_mean import PROTOCOL, PatchMean, Pictures

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.entry import evaluate


@pytest.fixture(scope="module")
def result():
    return evaluate(PatchMean(), Pictures(), {**PROTOCOL, "codecs": {"jpeg": {}}})


def other(result, **changes):
    """A copy with other names, e.g. ``protocol__hash="x"``."""
    changed = copy.deepcopy(result)
    for path, value in changes.items():
        group, key = path.split("__")
        changed[group][key] = value
    return changed


def test_one_table_for_one_protocol(result):
    better = other(result, tokenizer__name="better")
    better["metrics"]["psnr"]["value"] += 1
    lines = results.results_table([result, better]).splitlines()
    assert lines[0].startswith("| tokenizer | PSNR dB | SSIM | bits per pixel (file) |")
    assert lines[2].startswith("| better |")
    assert lines[3].startswith("| patch_mean.test |")
    assert lines[-1].startswith("Protocol test@")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"protocol__hash": "ffff"}, "protocol"),
        ({"data__sha256": "ffff"}, "data set"),
        ({"data__n": 99}, "number of pictures"),
    ],
)
def test_tables_refuse_to_mix(result, change, what):
    with pytest.raises(ConfigError) as caught:
        results.results_table([result, other(result, **change)])
    assert str(caught.value).startswith(f"results: expected one {what} in a table; got ")
    assert str(caught.value).endswith("Make one table for each.")


def test_the_commit_is_that_of_the_clone():
    root = Path(__file__).resolve().parents[2]
    found = results.environment("cpu")["commit"]
    if not (root / ".git").exists():
        assert found is None
        return
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    assert (
        found == subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    )


def test_a_table_of_nothing_is_refused():
    with pytest.raises(ConfigError) as caught:
        results.results_table([])
    assert str(caught.value) == (
        "results: expected at least one; got none. Run an evaluation first."
    )


def test_skipped_metrics_say_why_and_leave_blanks(result):
    changed = copy.deepcopy(result)
    changed["metrics"]["rFID"] = {
        "value": None, "n": 0, "interval": None, "status": "skipped", "reason": "no weights",
    }  # fmt: skip
    assert "| rFID | skipped: no weights | | |" in results.metric_table(changed)
    assert "rFID" not in results.results_table([changed])


def test_writing_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "r.json"
    results.write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        results.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [one.name for one in path.parent.iterdir()] == ["r.json"]


def test_files_of_another_schema_are_refused(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"schema": 0}')
    with pytest.raises(ConfigError) as caught:
        results.read_result(path)
    assert str(caught.value) == (
        f"read_result: expected schema 1 in '{path}'; got 0. Evaluate again."
    )
    path.write_text("{")
    with pytest.raises(ConfigError) as caught:
        results.read_result(path)
    assert str(caught.value).startswith(f"read_result: expected JSON in '{path}'; got ")


def test_numbers_are_printed_with_four_digits():
    shown = [results.number(value) for value in (None, 0.12345, 1.23456, 27.12345, 12345.6, 7.0)]
    assert shown == ["", "0.1235", "1.235", "27.12", "12,346", "7"]


def script(name: str):
    path = Path(__file__).resolve().parents[2] / "eval" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"eval_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_codecs_are_compared_on_a_folder(tmp_path, capsys):
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    Image.effect_noise((40, 40), 40).convert("RGB").save(tmp_path / "pictures" / "a.png")
    words = ["--data", str(tmp_path / "pictures"), "--size", "32", "--bytes", "700", "1400"]
    compare = script("compare_codecs")
    assert compare.main([*words, "--codecs", "jpeg", "webp", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "codecs.json").read_text())["rows"]
    assert [row["codec"] for row in rows] == ["jpeg", "jpeg", "webp", "webp"]
    assert rows[0]["psnr"] <= rows[1]["psnr"]
    assert "| WebP | 700 |" in capsys.readouterr().out
    assert compare.main(["--data", "nothing"]) == 2


def test_eval_run_measures_a_saved_tokenizer(tiny_tokenizer, tmp_path, monkeypatch, capsys):
    tiny_tokenizer.save(tmp_path / "tokenizer")
    kept = tmp_path / "kept.json"
    words = ["data=synthetic_images", "protocol=image_matrix", "protocol.limit=3", f"keep={kept}"]
    folders = [f"tokenizer={tmp_path / 'tokenizer'}", f"out={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", ["run.py", *folders, *words])
    assert script("run").main() == 0
    assert "| PSNR dB |" in capsys.readouterr().out
    result = results.read_result(kept)
    assert result["data"]["name"] == "synthetic_images.val"
    assert result["tokenizer"]["parameters"] > 0
    assert (tmp_path / "out" / "report.html").is_file()
    monkeypatch.setattr(sys, "argv", ["run.py", "tokenizer=nothing", *words])
    assert script("run").main() == 2
    assert "nothing" in capsys.readouterr().err
