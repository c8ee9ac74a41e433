import copy
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reference.mean_codec import MeanCodec
from reference.patch_mean import PROTOCOL, PatchMean, Pictures

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.entry import evaluate
from tokenizers_vq.evaluation.leaderboard import collect, columns, command, read_claims
from tokenizers_vq.evaluation.leaderboard_page import leaderboard_page
from tokenizers_vq.verify.receipt import verify

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "input", "br"}
CLAIMS = {
    "protocols": {"p1": "as <they> did", "p2": "otherwise"},
    "sources": {"s": "their paper"},
    "claims": [
        {"tokenizer": "patch_mean.test", "metric": "rFID", "value": 1.5, "protocol": "p1",
         "source": "s"},
        {"tokenizer": "unseen", "metric": "psnr", "value": 20, "protocol": "p2", "source": "s"},
    ],
}  # fmt: skip


class Page(HTMLParser):
    """What the tests ask of a page: that it is well formed, its ids, links, tables and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.external: list[str] = []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        got = dict(attrs)
        self.ids += [got["id"]] if "id" in got else []
        self.links += [got["href"]] if tag == "a" else []
        self.external += [got[key] for key in ("src", "srcset") if key in got]
        self.external += [got["href"]] if tag == "link" else []
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.stack):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def result():
    return evaluate(PatchMean(), Pictures(), {**PROTOCOL, "codecs": {}})


@pytest.fixture
def folder(result, tmp_path):
    second = copy.deepcopy(result)
    second["tokenizer"]["name"] = "better <b>"
    second["metrics"]["psnr"]["value"] += 1
    second["metrics"]["extra"] = {**second["metrics"]["psnr"], "value": 3.0}
    third = copy.deepcopy(result)
    third["protocol"]["hash"] = "other"
    for name, one in (("a", result), ("b", second), ("c", third)):
        results.write_json(tmp_path / "in" / name / "result.json", one)
    verify(MeanCodec("careless"), tmp_path / "in" / "receipt")
    (tmp_path / "in" / "matrix.json").write_text('{"rows": []}')
    (tmp_path / "claimed.json").write_text(json.dumps(CLAIMS))
    return tmp_path


@pytest.fixture
def page(folder):
    return Page(leaderboard_page(collect(folder / "in", folder / "claimed.json")))


def test_results_are_grouped_by_what_makes_them_comparable(folder):
    board = collect(folder / "in", folder / "claimed.json")
    assert [len(group) for group in board.groups] == [2, 1]
    assert list(board.receipts) == ["mean.test"]
    assert columns(board.groups[0])[:3] == ["psnr", "psnr_pooled", "ssim"]
    assert columns(board.groups[0])[-1] == "extra"
    assert command(board.groups[0][0]) == (
        "tvq eval patch_mean.test --protocol test --data Pictures"
    )


def test_every_measured_cell_leads_to_its_protocol_n_interval_command_and_commit(page, folder):
    measured = [link for link in page.links if re.match(r"#r0-1-", link)]
    assert "#r0-1-psnr" in measured
    assert all(link[1:] in page.ids for link in page.links)
    text = leaderboard_page(collect(folder / "in", folder / "claimed.json"))
    card = text.partition("id='r0-1'")[2] or text.partition('id="r0-1"')[2]
    card = card.partition("</details>")[0]
    for needed in ("#p0", "n = 3", "tvq eval", "commit", "b/result.json", "seed 0"):
        assert needed in card
    row = card.partition("id='r0-1-psnr'")[2].partition("</tr>")[0]
    assert re.search(r"\d .. \d\d\.\d\d, n = 3", row)


def test_missing_is_blank_and_claims_have_a_column_of_their_own(page):
    head, first, second = page.tables[0]
    assert head[0] == "tokenizer"
    assert head[-1] == "claimed elsewhere"
    assert (first[head.index("extra")], second[head.index("extra")]) == ("", "3")
    assert (first[-1], second[-1]) == ("rFID 1.5", "")
    assert "rFID" not in head
    claims = [table for table in page.tables if table[0][-1] == "source"]
    assert claims == [
        [["tokenizer", "claimed rFID", "source"], ["patch_mean.test", "1.5", "their paper"]],
        [["tokenizer", "claimed PSNR dB", "source"], ["unseen", "20", "their paper"]],
    ]


def test_the_page_asks_nobody_and_escapes_what_it_shows(page, folder):
    text = leaderboard_page(collect(folder / "in", folder / "claimed.json"))
    assert page.external == []
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp", text)
    assert "better <b>" not in text
    assert "better &lt;b&gt;" in text
    assert "as &lt;they&gt; did" in text
    assert 'name="viewport"' in text
    assert len(page.ids) == len(set(page.ids))


def test_receipts_are_listed(page):
    table = next(table for table in page.tables if table[0][1] == "properties kept")
    assert table[1][:3] == ["mean.test", "10", "bad indices are refused"]


def script():
    spec = importlib.util.spec_from_file_location("board", ROOT / "eval" / "leaderboard.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_writes_a_page_and_one_table_per_protocol(folder, capsys):
    words = [str(folder / "in"), "--out", str(folder), "--claimed", str(folder / "claimed.json")]
    assert script().main(words) == 0
    assert capsys.readouterr().out.count("## test, Pictures") == 2
    assert (folder / "leaderboard.html").read_text().startswith("<!doctype html>")
    assert script().main([str(folder / "none")]) == 2
    assert capsys.readouterr().err == (
        f"leaderboard: expected result files in '{folder / 'none'}'; got none. "
        "Run tvq eval NAME -o eval/results/NAME/PROTOCOL.\n"
    )


def test_what_is_committed_makes_a_page(tmp_path):
    assert script().main(["--out", str(tmp_path)]) == 0
    page = Page((tmp_path / "leaderboard.html").read_text())
    assert page.external == []
    assert all(link[1:] in page.ids for link in page.links)


def test_incomplete_claims_are_refused(tmp_path):
    path = tmp_path / "c.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"claims: expected JSON in '.*c.json'; got .*Correct it"):
        read_claims(path)
    for change, said in (
        ({"source": "x"}, "claims: expected a source of s in claim 0 of '{}'; got 'x'. "
                          "Describe it there first."),
        ({"value": None}, "claims: expected tokenizer, metric, value, protocol, source in claim 0 "
                          "of '{}'; value missing. Add it, or leave the claim out."),
    ):  # fmt: skip
        data = copy.deepcopy(CLAIMS)
        data["claims"][0] |= change
        data["claims"][0] = {k: v for k, v in data["claims"][0].items() if v is not None}
        path.write_text(json.dumps(data))
        with pytest.raises(ConfigError) as error:
            read_claims(path)
        assert str(error.value) == said.format(path)
