"""The statistics of the controlled bench; its trainings are the matrix's, which has tests."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

from tokenizers_vq.configs import config_names

PATH = Path(__file__).parents[1] / "benchmarks" / "which_quantizer.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("which_quantizer", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cell(bench, head, seed, psnr):
    scores = dict.fromkeys(bench.SCORES, 0.5) | {"psnr": psnr, "nominal_bits": 12 * 1024}
    return {"head": head, "seed": seed, "status": "ok", "train_cpu_seconds": 1.0, **scores}


def rows(bench):
    pairs = {"fsq": (20.0, 21.0, 22.0), "vq": (19.5, 20.4, 21.6)}
    cells = [cell(bench, head, i, x) for head, xs in pairs.items() for i, x in enumerate(xs)]
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


def test_the_table_and_the_plot_are_written(bench, tmp_path):
    table = bench.summary(rows(bench))
    text = bench.markdown(table)
    assert "| fsq | 21.00 ± 2.48 | +0.00 ± 0.00 | 12.00 |" in text
    bench.plot(rows(bench), table, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
    assert json.dumps(table)


def test_a_head_with_one_seed_has_no_interval_and_is_not_the_measure(bench):
    table = bench.summary([*rows(bench), cell(bench, "ibq", 0, 30.0)])
    assert [row["head"] for row in table] == ["ibq", "fsq", "vq"]
    assert table[1]["versus"] == (0, 0)
    assert "| ibq | 30.00 (one seed) | +10.00 (one seed) |" in bench.markdown(table)


def test_every_head_of_the_bench_has_a_config(bench):
    named = {words[0].removeprefix("quantizer=") for words in bench.HEADS.values()}
    assert named <= set(config_names("quantizer"))
