import json

import pytest
import torch

from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.baselines import Baselines
from tokenizers_vq.evaluation.protocol import Protocol
from tokenizers_vq.evaluation.report import _verdict

PROTOCOL = Protocol(
    "test", None, [{"name": "similarity", "names": ["psnr"]}], codecs={"jpeg": {}}, resamples=20
)


def points_of(n_bytes):
    """What JPEG makes of two pictures of noise in that many bytes; ours have 30 and 10 dB."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    baselines = Baselines(PROTOCOL, {})
    rows = baselines.update(real, n_bytes)
    return baselines.points([30.0, 10.0]), [row["jpeg"] for row in rows]


def table_of(points):
    metrics = {k: {"value": v} for k, v in (("psnr", 20.0), ("n_bytes", 7.0))}
    return results.codec_table({
        "tokenizer": {"name": "ours"}, "metrics": metrics, "baselines": points,
        "data": {"n": 2, "unit": "pictures"}, "anchors": {},
    })  # fmt: skip


def test_what_is_over_the_budget_is_not_shown_as_if_it_met_it():
    points, (over, fits) = points_of([10, 100_000])
    assert (over["fits"], fits["fits"]) == (False, True)
    (point,) = points["jpeg"]["best_scale"]
    assert point["over_budget"] == 1
    fitting = point["fitting"]
    assert (fitting["n"], fitting["n_bytes"]) == (1, fits["n_bytes"])
    assert fitting["metrics"] == {"psnr": fits["psnr"]}
    # paired with the tokenizer's picture of the same place, the second
    assert fitting["psnr_gain"]["value"] == pytest.approx(10 - fits["psnr"])
    json.dumps(point)
    row = table_of(points).splitlines()[-1]
    assert row.startswith(f"| JPEG | best scale, 1 of 2 fit | {results.number(fits['n_bytes'])} | ")
    assert f"{10 - fits['psnr']:+.2f} dB" in row


def test_where_nothing_fits_nothing_is_compared():
    points, _ = points_of([10, 10])
    (point,) = points["jpeg"]["best_scale"]
    assert point["fitting"] == {"n": 0, "n_bytes": None, "metrics": {}, "psnr_gain": None}
    assert table_of(points).splitlines()[-1] == "| JPEG | best scale, 0 of 2 fit |  |  |  |"
    assert _verdict({"baselines": points}) == ""


def test_where_all_fits_the_point_stands_as_it_is():
    points, _ = points_of([100_000, 100_000])
    (point,) = points["jpeg"]["best_scale"]
    assert "fitting" not in point
    assert "| JPEG | best scale | " in table_of(points)
    old = {**point, "over_budget": 1}  # a result from before there was ``fitting``
    assert "(1 over)" in table_of({"jpeg": {"best_scale": [old]}})
