"""The statistics of the controlled bench; its trainings are the matrix's, which has tests."""

import argparse
import dataclasses
import importlib
import json
import math
import sys
from pathlib import Path

import pytest

from tokenizers_vq.configs import config_names

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(FOLDER), *sys.path])
        yield importlib.import_module("which_quantizer")


@pytest.fixture(scope="module")
def speech(bench):
    return importlib.import_module("which_quantizer_speech").SPEECH


def cell(kind, head, seed, score):
    scores = dict.fromkeys(kind.scores, 0.5) | {kind.scores[0]: score}
    scores |= {"nominal_bits": 12 * 1024, "nominal_kbps": 0.75}
    return {"head": head, "seed": seed, "status": "ok", "train_cpu_seconds": 1.0, **scores}


def rows(bench):
    pairs = {"fsq": (20.0, 21.0, 22.0), "vq": (19.5, 20.4, 21.6)}
    cells = [cell(bench.PHOTOS, head, i, x) for head, xs in pairs.items() for i, x in enumerate(xs)]
    return [*cells, {"head": "vq", "seed": 3, "status": "failed", "error": "x"}]


def test_the_interval_is_students(bench):
    assert bench.interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.303 / math.sqrt(3)))
    assert math.isnan(bench.interval([1.0])[1])


def test_differences_are_taken_seed_by_seed(bench):
    best, other = bench.summary(rows(bench))
    assert (best["head"], other["head"]) == ("fsq", "vq")
    assert best["versus"] == (0, 0)
    assert other["versus"][0] == pytest.approx(-0.5)
    assert other["versus"][1] == pytest.approx(4.303 * 0.1 / math.sqrt(3))
    assert other["versus"][1] < other["psnr"][1]


def test_a_head_is_better_only_beyond_the_interval_of_the_difference(bench, speech):
    cells = rows(bench)
    assert bench.beaten(cells, bench.summary(cells)) == {"fsq": ["vq"], "vq": []}
    cells[3]["psnr"] = 25.0
    assert bench.beaten(cells, bench.summary(cells)) == {"fsq": [], "vq": []}
    low = [cell(speech, "fsq", i, 1.0 + i) for i in range(2)]
    high = [cell(speech, "vq", i, 2.0 + i) for i in range(2)]
    once = [cell(speech, "ibq", 0, 0.0)]
    found = bench.beaten(low + high + once, bench.summary(low + high + once, speech), speech)
    assert found == {"ibq": [], "fsq": ["vq"], "vq": []}


def test_the_table_and_the_plot_are_written(bench, tmp_path):
    table = bench.summary(rows(bench))
    text = bench.markdown(table)
    assert "| fsq | 21.00 ± 2.48 | +0.00 ± 0.00 | 12.00 |" in text
    bench.plot(rows(bench), table, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
    assert json.dumps(table)


def test_a_head_with_one_seed_has_no_interval_and_is_not_the_measure(bench):
    table = bench.summary([*rows(bench), cell(bench.PHOTOS, "ibq", 0, 30.0)])
    assert [row["head"] for row in table] == ["ibq", "fsq", "vq"]
    assert table[1]["versus"] == (0, 0)
    assert "| ibq | 30.00 (one seed) | +10.00 (one seed) |" in bench.markdown(table)


def test_the_results_are_json_without_paths_or_nan(bench, tmp_path):
    kind = dataclasses.replace(bench.PHOTOS, data=lambda root: [root])
    once = cell(kind, "ibq", 0, 30.0) | {"overrides": ["data.root=/somewhere"], "key": "0"}
    cells = [row | {"commit": "c"} for row in [*rows(bench), once]]
    words = {"train": tmp_path, "heldout": tmp_path, "seeds": 3, "steps": 10}
    bench.write(argparse.Namespace(out=tmp_path, **words), cells, kind)
    text = (tmp_path / "which_quantizer.json").read_text()
    assert "/somewhere" not in text
    first = json.loads(text)["summary"][0]
    assert (first["head"], first["psnr"], first["versus"]) == ("ibq", [30.0], [10.0])
    page = (tmp_path / "which_quantizer.md").read_text()
    assert "3 seeds (1 for ibq), 10 steps" in page
    assert "* `fsq`: vq" in page


def test_a_lower_mel_distance_is_better(bench, speech, tmp_path):
    cells = [cell(speech, head, i, x) for head, xs in (("vq", (2.0, 2.2)), ("fsq", (1.0, 1.1)))
             for i, x in enumerate(xs)]  # fmt: skip
    table = bench.summary(cells, speech)
    assert [row["head"] for row in table] == ["fsq", "vq"]
    assert table[1]["versus"][0] == pytest.approx(1.05)
    text = bench.markdown(table, speech)
    assert "| head | mel distance | to the best |" in text
    assert "| fsq | 1.050 ± 0.635 | +0.000 ± 0.000 | 0.5 | 12.0 |" in text
    bench.plot(cells, table, tmp_path / "plot.png", speech)
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_every_head_of_the_bench_has_a_config(bench):
    named = {words[0].removeprefix("quantizer=") for words in bench.HEADS.values()}
    assert named <= set(config_names("quantizer"))
