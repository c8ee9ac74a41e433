"""The doctor on codebooks whose illness is known."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from tokenizers_vq import cli, hub
from tokenizers_vq.configs import config_names, read_config, tokenizer_config
from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.doctor.advice import findings
from tokenizers_vq.doctor.diagnosis import diagnose, twins
from tokenizers_vq.doctor.drift import drift
from tokenizers_vq.doctor.survey import Survey, parts, survey
from tokenizers_vq.doctor.view import page
from tokenizers_vq.errors import ConfigError, DataError, ShapeError
from tokenizers_vq.quantizers.ecsq import ECSQ
from tokenizers_vq.quantizers.fsq import FSQ
from tokenizers_vq.quantizers.gaussian import Gaussian
from tokenizers_vq.quantizers.grouped import Grouped
from tokenizers_vq.quantizers.lfq import LFQ
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.vq import VectorQuantizer
from tokenizers_vq.registry import QUANTIZERS
from tokenizers_vq.tokenizer import Tokenizer

CODES = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])


class Echo:
    """A data set of latents: a picture's channels are its latents."""

    def __init__(self, items):
        self.items, self.ids = items, [str(k) for k in range(len(items))]

    def __getitem__(self, index):
        return self.items[index]


class Bare(torch.nn.Module):
    """An encoder or a decoder that changes nothing but the place of the channels."""

    stride = (1, 1)

    def __init__(self, dim):
        super().__init__()
        self.dim, self.signal = dim, SimpleNamespace(axes=2, channels=dim, value_range=(-9, 9))
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def frame(self, x):
        return x

    def forward(self, x):
        return x.movedim(1, -1)


def seen_by(quantizer, latents):
    """Return a survey of ``quantizer`` on a list of latents ``(h, w, D)``."""
    tokenizer = Tokenizer(Bare(quantizer.dim), quantizer, Bare(quantizer.dim), name="t.t").eval()
    return survey(tokenizer, Echo([z.movedim(-1, 0) for z in latents]))


def table(codes, **options):
    head = VectorQuantizer(codes.shape[1], codebook_size=len(codes), **options)
    head.codebook.data.copy_(codes)
    return head.eval()


def found(seen, **more):
    report = {**diagnose(seen, "echo"), **more}
    report["findings"] = findings(report)
    return report, {one["kind"]: one for one in report["findings"]}


def items(indices):
    """Return a survey that saw ``indices``, a list of ``(n, K)``."""
    sizes = (4,) * indices[0].shape[1]
    quantizer = SimpleNamespace(codebook_sizes=sizes)
    return Survey(SimpleNamespace(quantizer=quantizer), indices)


def test_golden_numbers_of_a_table():
    z = torch.cat([CODES[[0]].repeat(4, 1), CODES[[1]].repeat(2, 1), CODES[[2]].repeat(2, 1)])
    z = z + 0.5 * torch.tensor([[1.0, 0], [-1.0, 0]] * 4)
    report, _ = found(seen_by(table(CODES), [z.reshape(2, 4, 2)]))
    (row,) = report["codebooks"]
    assert (row["head"], row["size"], row["used"], row["dead"]) == ("vq", 4, 3, 1)
    assert row["bits"] == pytest.approx(1.5)
    assert row["perplexity"] == pytest.approx(2**1.5)
    assert (row["top_code"], row["top_share"]) == (0, 0.5)
    spread = z.var(0, correction=0).sum()
    assert row["error"] == pytest.approx(0.25 / float(spread), abs=1e-5)
    assert report["tokens"] == 8
    assert report["nominal_bits"] == 2


def test_few_tokens_do_not_make_a_code_dead():
    z = CODES[torch.randint(0, 3, (6, 6))]
    _, few = found(seen_by(table(CODES), [z]))
    assert few["few_tokens"]["found"] == "36 tokens are too few to call any of 4 codes dead"
    assert few["few_tokens"]["advice"].startswith("Give more data, at least 40 tokens;")
    assert "dead" not in few
    _, enough = found(seen_by(table(CODES, restart_threshold=0.0), [z, z]))
    assert "few_tokens" not in enough
    assert enough["dead"]["found"] == "1 of 4 codes (25%) are dead"
    assert enough["dead"]["where"] == "#0"


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"restart_threshold": 0.0}, "set restart_threshold to 0.05"),
        ({}, "set kmeans_init to random"),
        ({"kmeans_init": "random"}, "set codebook_update to ema, or lower code_dim"),
        (
            {"kmeans_init": "random", "codebook_update": "ema"},
            "raise restart_threshold, or lower codebook_size",
        ),
    ],
)
def test_the_advice_for_dead_codes_names_an_option_that_helps(options, advice):
    z = CODES[torch.randint(0, 3, (8, 8))]
    _, kinds = found(seen_by(table(CODES, **options), [z]))
    assert kinds["dead"]["advice"] == (
        f"Train again: {advice}, or repair this one with --fix revive or --fix prune."
    )


def test_a_collapsed_codebook_and_one_loud_code():
    codes = 10 * torch.eye(16)
    picks = torch.zeros(20, 20, dtype=torch.int64)
    picks[0, :12] = torch.arange(12)
    _, kinds = found(seen_by(table(codes), [codes[picks]]))
    assert kinds["collapsed"]["found"] == "the tokens could come from 1.2 codes of 16"
    assert kinds["collapsed"]["advice"] == (
        "The codebook has collapsed; set kmeans_init to random."
    )
    assert "top_code" not in kinds
    picks[:16] = torch.arange(320).reshape(16, 20) % 16
    picks[:12] = 3
    _, kinds = found(seen_by(table(codes), [codes[picks]]))
    assert kinds["top_code"]["found"] == "code 3 has 61% of the tokens"
    assert "collapsed" not in kinds


def test_twins_among_live_codes_only():
    codes = torch.cat([CODES, CODES[:1] + 0.05, CODES[3:] + 0.05])
    live = torch.tensor([True, True, True, True, True, False])
    assert twins(codes, live) == ([(0, 4)], "")
    z = codes[torch.arange(60) % 5].reshape(6, 10, 2)
    _, kinds = found(seen_by(table(codes), [z]))
    assert kinds["twins"]["found"] == "1 pair of codes in use nearly coincide, such as 0 and 4"
    assert twins(CODES[:2], torch.tensor([True, True])) == ([], "")
    assert twins(torch.zeros(4, 2), torch.ones(4, dtype=torch.bool))[0] != []


def test_large_codebooks_are_sampled(monkeypatch):
    monkeypatch.setattr("tokenizers_vq.doctor.diagnosis.TWIN_SEARCH", 100)
    monkeypatch.setattr("tokenizers_vq.doctor.diagnosis.TWIN_SAMPLE", 50)
    codes = torch.randn(101, 3)
    _, note = twins(codes, torch.ones(101, dtype=torch.bool))
    assert note == "neighbours of 50 of 101 codes in use"


def test_stages_of_a_stack_and_one_that_does_nothing():
    stages = [table(CODES), table(0.001 * CODES), table(CODES / 4 - 0.5)]
    z = CODES[torch.randint(0, 4, (3, 8, 8))] + 1.4 * torch.rand(3, 8, 8, 2) - 0.7
    report, kinds = found(seen_by(Residual(stages=stages).eval(), list(z)))
    first, second, third = report["stacks"][""]
    assert second == pytest.approx(first, rel=0.02)
    assert third < 0.5 * second
    out = Residual(stages=stages).eval()(z)
    spread = z.reshape(-1, 2).var(0, correction=0).sum()
    error = (out.z_q - z).square().sum(-1).mean()
    assert third == pytest.approx(float(error / spread), abs=1e-5)
    assert kinds["idle_stage"]["where"] == "stack stage 1"
    assert [row["path"] for row in report["codebooks"]] == ["stages.0", "stages.1", "stages.2"]


def test_parts_are_the_innermost_heads_in_order():
    inner = Residual(stages=[table(CODES), table(CODES)])
    head = Grouped(groups=[FSQ(levels=[3, 3]), inner, LFQ(bits=3)])
    assert [(part.path, part.start) for part in parts(head)] == [
        ("groups.0", 0), ("groups.1.stages.0", 1), ("groups.1.stages.1", 2), ("groups.2", 3),
    ]  # fmt: skip
    again = Residual(stages=[table(CODES)], repeat=3)
    assert [(part.path, part.start) for part in parts(again)] == [("stages.0", k) for k in range(3)]
    assert len({id(part.head) for part in parts(again)}) == 1


@pytest.mark.parametrize(
    ("head", "kind", "advice"),
    [
        (
            LFQ(bits=4, entropy_weight=0.2),
            "dead",
            "Raise entropy_weight (now 0.2) or take fewer bits.",
        ),
        (
            FSQ(levels=[5, 5, 5, 5]),
            "dead",
            "Give the head fewer codes (levels, bits or codebook_size), or train longer.",
        ),
        (
            ECSQ(channels=4, max_level=2),
            "clipped",
            "Raise max_level, or overflow_weight: latents beyond the last level are cut off.",
        ),
    ],
)  # fmt: skip
def test_heads_without_a_table_get_advice_of_their_own(head, kind, advice):
    z = 9 * torch.randn(10, 60, 4) * torch.tensor([1.0, 1, 1, 0]) + 0.01
    report, kinds = found(seen_by(head.eval(), list(z[:, None].repeat(3, 4, 3, 1))))
    assert kinds[kind]["advice"] == advice
    assert all(row["twins"] is None and row["error"] is None for row in report["codebooks"])


def test_a_silent_channel_of_scalars():
    z = torch.randn(12, 12, 3) * torch.tensor([2.0, 0, 2.0])
    report, kinds = found(seen_by(ECSQ(channels=3, max_level=9).eval(), [z]))
    assert kinds["silent"]["where"] == "#1"
    assert kinds["silent"]["found"] == "code 9 has 100.0% of the tokens, 0.000 bits per index"
    assert not {"dead", "collapsed", "top_code"} & set(kinds)
    assert report["bits"] == pytest.approx(sum(row["bits"] for row in report["codebooks"]))


def test_positions_that_never_change():
    z = CODES[torch.randint(0, 4, (20, 4, 4))]
    z[:, 1, 2] = CODES[3]
    report, kinds = found(seen_by(table(CODES), list(z)))
    assert report["positions"]["low"] == [[1, 2]]
    assert "such as (1, 2): 0.00 bits instead of 1." in kinds["positions"]["found"]
    few, _ = found(seen_by(table(CODES), list(z[:3])))
    assert few["positions"] == {
        "note": "positions were not compared: that needs 16 items of one size"
    }


def test_drift_has_a_noise_floor():
    draw = torch.Generator().manual_seed(0)
    even = [torch.randint(0, 4, (64, 1), generator=draw) for _ in range(24)]
    low = [torch.randint(0, 2, (64, 1), generator=draw) for _ in range(12)]
    (none,) = drift(items(even[:12]), items(even[12:]))
    (much,) = drift(items(even[:12]), items(low))
    assert none["divergence"] <= 1.5 * none["noise"] < 0.01
    # half of one set's mass is where the other has none
    assert much["divergence"] == pytest.approx(1.5 - 0.75 * math.log2(3), abs=0.02)
    assert much["divergence"] > 3 * much["noise"]
    code, before, after = much["changed"][0]
    assert abs(before - after) == pytest.approx(0.25, abs=0.04)
    assert code in range(4)
    (few,) = drift(items(even[:1]), items(even[1:2]))
    assert few["noise"] is None
    (apart,) = drift(items([torch.zeros(9, 1).long()]), items([torch.ones(9, 1).long()]))
    assert apart["divergence"] == pytest.approx(1)


def test_drift_is_a_finding_and_needs_one_tokenizer():
    z = CODES[torch.randint(0, 4, (8, 8, 8))]
    before, after = (seen_by(table(CODES), list(one)) for one in (z, z * (z > 9)))
    _, kinds = found(before, drift=drift(before, after))
    assert kinds["drift"]["where"] == "#0"
    with pytest.raises(ShapeError) as error:
        drift(before, items([torch.zeros(1, 2).long()]))
    assert str(error.value) == (
        "drift: expected surveys of codebooks (4,); got (4, 4). "
        "Compare two data sets with one tokenizer."
    )


def test_a_healthy_codebook_needs_nothing():
    z = CODES[torch.randint(0, 4, (8, 8, 8))]
    report, _ = found(seen_by(table(CODES), list(z)))
    assert report["findings"] == []
    assert page(report).endswith("Nothing to repair.\n")


# without those that have no codes, or take no pictures
EXAMINED = sorted(QUANTIZERS.keys() - {"gaussian", "temporal_scales", "hierarchical"})


@pytest.mark.parametrize("head", EXAMINED)
def test_every_head_can_be_examined(head):
    configs = {name: read_config("quantizer", name) for name in config_names("quantizer")}
    name = next(name for name, config in configs.items() if config["name"] == head)
    tokenizer = Tokenizer.from_config(tokenizer_config("tiny_cnn2d", name), name="t.t").eval()
    seen = survey(tokenizer, SyntheticImages(n=1, size=64))
    report, _ = found(seen)
    rows = report["codebooks"]
    assert tuple(row["size"] for row in rows) == tokenizer.quantizer.codebook_sizes
    assert all(0 <= row["bits"] <= row["nominal_bits"] for row in rows)
    assert f"t.t on echo: 1 items, {report['tokens']} positions" in page(report)


def test_a_stopped_survey_leaves_the_heads_as_they_were():
    class Stopped(Echo):
        def __getitem__(self, index):
            raise KeyboardInterrupt

    head = table(CODES)
    tokenizer = Tokenizer(Bare(2), head, Bare(2)).eval()
    with pytest.raises(KeyboardInterrupt):
        survey(tokenizer, Stopped([0]))
    assert "code_indices" not in vars(head)


def test_data_of_another_kind_are_refused(tiny_tokenizer):
    with pytest.raises(ShapeError) as error:
        survey(tiny_tokenizer, Echo([torch.zeros(1, 100)]))
    assert str(error.value) == (
        "doctor: expected shape (B, 3, H, W); got (1, 1, 100). Give data of the tokenizer's kind."
    )


def test_surveys_of_nothing_are_refused(tiny_tokenizer):
    with pytest.raises(DataError) as error:
        survey(tiny_tokenizer, Echo([]))
    assert str(error.value) == ("doctor: expected at least one item; got none. Check the folder.")
    with pytest.raises(ConfigError) as limit:
        survey(tiny_tokenizer, SyntheticImages(n=2), limit=0)
    assert str(limit.value) == "doctor: expected a limit of at least 1; got 0. Raise it."


@pytest.fixture
def saved(tmp_path):
    config = tokenizer_config("tiny_cnn2d", "vq")
    config["quantizer"] = {**config["quantizer"], "codebook_size": 32, "kmeans_init": "none"}
    return hub.save(Tokenizer.from_config(config, name="tiny.vq").eval(), tmp_path / "tok")


def test_the_command_writes_a_report_and_a_picture(saved, tmp_path, capsys):
    out = tmp_path / "report"
    words = ["doctor", str(saved), "synthetic_images", "--against", "synthetic_images",
             "--limit", "6", "-o", str(out)]  # fmt: skip
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("tiny.vq on synthetic_images: 6 items, 384 positions\n")
    assert "Drift to synthetic_images, 6 items:" in printed
    report = json.loads((out / "doctor.json").read_text())
    assert report["schema"] == "tokenizers_vq.doctor.1"
    assert report["drift"][0]["divergence"] == 0
    assert report["codebooks"][0]["size"] == 32
    assert (out / "doctor.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_repairs(saved, tmp_path, capsys):
    words = ["doctor", str(saved), "synthetic_images", "--limit", "8"]
    assert cli.main([*words, "--fix", "prune", "-o", str(tmp_path / "new")]) == 0
    assert "still decode" in capsys.readouterr().out
    new, old = hub.load(tmp_path / "new"), hub.load(saved)
    x = torch.zeros(1, 3, 16, 16)
    torch.testing.assert_close(new.decode(old.encode(x)), old.decode(old.encode(x)))
    assert cli.main([*words, "--fix", "shrink", "-o", str(tmp_path / "small")]) == 2
    assert capsys.readouterr().err == (
        "tvq doctor: doctor: expected --fix shrink and --codes together; got one of them. "
        "Write --fix shrink --codes 1024.\n"
    )


def test_a_tokenizer_without_codes_has_nothing_to_look_at():
    with pytest.raises(ConfigError) as error:
        seen_by(Gaussian(dim=2), [torch.zeros(2, 2, 2)])
    assert str(error.value) == (
        "doctor: expected a tokenizer with codes; got the continuous head Gaussian. "
        "Fit token_bridge or revq to it first (tvq fit)."
    )
