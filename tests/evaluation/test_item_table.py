import json
from types import SimpleNamespace

import pytest

from tokenizers_vq.data.synthetic_motion import SyntheticMotion
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation.item_table import data_of, finish, note_of, options, table

COLUMNS = {"a": ("first", 1), "b": ("second", 3)}
ROWS = [
    {"tokens": {"a": 1.0, "b": None}, "nothing": {"a": 3.0, "b": 0.5}},
    {"tokens": {"a": 2.0, "b": None}, "nothing": {"a": 4.0, "b": None}},
]


def test_means_are_over_what_is_there():
    assert table(ROWS, COLUMNS).splitlines() == [
        "| | first | second |",
        "|---|---:|---:|",
        "| tokens | 1.5 |  |",
        "| nothing | 3.5 | 0.500 |",
    ]


def test_what_is_printed_is_written_with_every_row(tmp_path, capsys):
    given = options("About.", "synthetic_motion").parse_args(["x", "-o", str(tmp_path / "out")])
    data = SyntheticMotion(n=2, frames=8)
    note = note_of(SimpleNamespace(model_id="m@1"), data, "generated")
    finish(given, "motions", note, ROWS, COLUMNS, "2 motions", "; more")
    page = (tmp_path / "out" / "table.md").read_text()
    assert capsys.readouterr().out == page + "\n"
    start = f"m@1, generated, 2 motions, data {data.sha256()[:12]}, commit "
    assert page.splitlines()[-1].startswith(start)
    assert "; more." in page
    kept = json.loads((tmp_path / "out" / "motions.json").read_text())
    assert (kept["rows"], kept["n"], kept["ids"]) == (ROWS, 2, data.ids)


def test_data_are_a_folder_with_patterns_or_a_name(tmp_path):
    read = options("About.", "synthetic_motion").parse_args
    given = read(["x", "--data", str(tmp_path), "--only", "a*"])
    assert data_of(given, lambda root, only: (root, only)) == ((str(tmp_path), ["a*"]), "folder")
    data, name = data_of(read(["x"]), None)
    assert (type(data), name) == (SyntheticMotion, "synthetic_motion")
    with pytest.raises(ConfigError, match="nowhere"):
        data_of(read(["x", "--data", "nowhere"]), None)
