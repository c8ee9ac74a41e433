import json
import re

import pytest
from reference.patch_mean import PatchMean, Pictures

from tokenizers_vq.configs import config_names, read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.matrix import run_matrix


class Trainer:
    """Counts what it is asked to train; fails for the heads it is told to."""

    def __init__(self, failing=()):
        self.calls = []
        self.failing = set(failing)

    def __call__(self, overrides, folder):
        self.calls.append(overrides)
        if overrides[1].removeprefix("quantizer=") in self.failing:
            raise RuntimeError("no luck\nsecond line")
        return PatchMean()


def matrix(out, train, **options):
    options = {
        "backbones": ["tiny_cnn2d"], "quantizers": ["fsq", "vq"], "steps": 5, **options
    }  # fmt: skip
    return run_matrix(out, train=train, dataset=Pictures(2), **options)


def test_every_head_meets_every_tiny_backbone(tmp_path):
    train = Trainer()
    # gaussian has no codes; vvq is for sequences, hitvideo for videos
    others = ("gaussian", "hitvideo", "vvq")
    heads = [name for name in config_names("quantizer") if name not in others]
    rows = matrix(tmp_path / "heads", train, quantizers=None)
    assert [row["quantizer"] for row in rows] == heads
    assert train.calls[0] == [
        "backbone=tiny_cnn2d", f"quantizer={heads[0]}",
        "data=synthetic_images", "trainer.max_steps=5", "seed=0",
    ]  # fmt: skip
    tiny = [
        name for name in config_names("backbone")
        if name.startswith("tiny_") and read_config("backbone", name)["signal"]["kind"] == "image"
    ]  # fmt: skip
    rows = matrix(tmp_path / "backbones", train, quantizers=["fsq"], backbones=None)
    assert [row["backbone"] for row in rows] == tiny


def test_it_writes_a_table_and_a_picture(tmp_path):
    rows = matrix(tmp_path, Trainer())
    assert json.loads((tmp_path / "matrix.json").read_text())["rows"] == json.loads(
        json.dumps(rows)
    )
    table = (tmp_path / "matrix.md").read_text()
    assert "| tiny_cnn2d | fsq | " in table
    assert "5 optimizer steps per cell, measured by image_matrix" in table
    picture = (tmp_path / "matrix.svg").read_text()
    words = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    assert {"fsq", "vq", "PSNR dB", "usage"} <= set(words)


def test_done_cells_are_not_done_again_but_changed_ones_are(tmp_path):
    first, again, changed = Trainer(), Trainer(), Trainer()
    rows = matrix(tmp_path, first)
    assert matrix(tmp_path, again) == rows
    matrix(tmp_path, changed, steps=6)
    assert (len(first.calls), len(again.calls), len(changed.calls)) == (2, 0, 2)


def test_a_failed_cell_is_noted_and_tried_again(tmp_path, capsys):
    rows = matrix(tmp_path, Trainer(["fsq"]))
    assert [row["status"] for row in rows] == ["failed", "ok"]
    assert rows[0]["error"] == "no luck"
    assert "| fsq | failed: no luck |" in (tmp_path / "matrix.md").read_text()
    assert "quantizer=fsq failed: no luck" in capsys.readouterr().err
    second = Trainer()
    assert [row["status"] for row in matrix(tmp_path, second)] == ["ok", "ok"]
    assert len(second.calls) == 1


def test_ctrl_c_stops_the_matrix_and_leaves_what_is_done(tmp_path):
    class Stopped(Trainer):
        def __call__(self, overrides, folder):
            if self.calls:
                raise KeyboardInterrupt
            return super().__call__(overrides, folder)

    with pytest.raises(KeyboardInterrupt):
        matrix(tmp_path, Stopped())
    rest = Trainer()
    matrix(tmp_path, rest)
    assert [call[1] for call in rest.calls] == ["quantizer=vq"]


def test_unknown_heads_are_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        matrix(tmp_path, Trainer(), quantizers=["fqs"])
    assert str(caught.value).startswith(
        "matrix: expected a quantizer in conf/quantizer; got 'fqs'. Choose from binary_mapper, "
    )


def test_backbones_for_other_signals_are_refused(tmp_path):
    train = Trainer()
    with pytest.raises(ConfigError) as caught:
        matrix(tmp_path, train, backbones=["tiny_cnn2d", "tiny_seanet"])
    assert str(caught.value) == (
        "matrix: expected backbones for the signals of 'synthetic_images', which have 2 axes; got "
        "'tiny_seanet' for audio. Choose other --data or --backbones."
    )
    assert not train.calls


def test_a_head_without_codes_is_refused(tmp_path):
    train = Trainer()
    with pytest.raises(ConfigError) as caught:
        matrix(tmp_path, train, quantizers=["fsq", "gaussian"])
    assert str(caught.value) == (
        "matrix: expected quantizers with codes; got 'gaussian', which has none. "
        "Leave it out, or fit token_bridge or revq to what it trained."
    )
    assert not train.calls
