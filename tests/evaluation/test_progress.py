import json

import pytest
import torch
from reference.patch_mean import PROTOCOL, PatchMean, Pictures
from reference.runs import timeless
from reference.sounds import voice

from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.errors import DataError
from tokenizers_vq.evaluation import progress
from tokenizers_vq.evaluation.entry import evaluate
from tokenizers_vq.evaluation.image_run import ImageRun
from tokenizers_vq.evaluation.protocol import load_protocol
from tokenizers_vq.tokenizer import Tokenizer

IMAGES = {
    **PROTOCOL,
    "codecs": {"webp": {"method": 0}},
    "budgets": [1, 2],
    "metrics": [*PROTOCOL["metrics"], {"name": "fidelity", "extractor": "efflite0"}],
}
SOUND = {
    "name": "sound",
    "signal": "audio",
    "metrics": [{"name": "si_sdr"}, {"name": "mel_distance"}, {"name": "codebook"}],
    "depths": [1],
    "anchors": ["noise_20db"],
    "codecs": {"mulaw": [8]},
    "resamples": 20,
}


class Killed(Exception):
    """Stands for whatever ends a process."""


class Counting(PatchMean):
    """A tokenizer that counts its batches, and dies after some of them."""

    def __init__(self, most: int = 1000, sha256: str = "0" * 64) -> None:
        self.calls, self.most, self.sha256 = 0, most, sha256

    def encode(self, x):
        self.calls += 1
        if self.calls > self.most:
            raise Killed
        return super().encode(x)


class Clips:
    """Short voices of several lengths."""

    signal = None
    ids = ("a", "b", "c")

    def __getitem__(self, index):
        return voice(0.3 + 0.1 * index, seed=index)

    def sha256(self):
        return "c" * 64


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return evaluate(PatchMean(), Pictures(7), IMAGES, tmp_path_factory.mktemp("whole"))


def files_of(folder):
    return sorted((folder / "state").glob("*.unit"))


@pytest.mark.parametrize("batches", [1, 3])
def test_a_killed_evaluation_goes_on_and_ends_the_same(whole, tmp_path, batches):
    with pytest.raises(Killed):  # one call more than batches: the first batch is a warm-up
        evaluate(Counting(batches + 1), Pictures(7), IMAGES, tmp_path)
    assert len(files_of(tmp_path)) == batches
    assert not (tmp_path / "result.json").exists()
    again = Counting()
    result = evaluate(again, Pictures(7), IMAGES, tmp_path)
    assert again.calls == 4 - batches + 1
    assert timeless(result) == timeless(whole)
    assert timeless(json.loads((tmp_path / "result.json").read_text())) == timeless(whole)
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 7
    assert len(list((tmp_path / "images").iterdir())) == 7
    assert not (tmp_path / "state").exists()


def test_sound_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_config(tokenizer_config("tiny_seanet", "rvq"), name="t").eval()
    whole = evaluate(tokenizer, Clips(), SOUND, tmp_path / "whole")
    right, seen = Clips.__getitem__, []
    monkeypatch.setattr(Clips, "__getitem__", lambda self, index: seen[3 * (index > 1)])
    with pytest.raises(IndexError):
        evaluate(tokenizer, Clips(), SOUND, tmp_path / "cut")
    assert files_of(tmp_path / "cut") == []
    seen.append(right(Clips(), 0))
    with pytest.raises(IndexError):  # the same samples under other names are other items
        evaluate(tokenizer, Clips(), SOUND, tmp_path / "cut")
    assert len(files_of(tmp_path / "cut")) == 2
    monkeypatch.setattr(Clips, "__getitem__", right)
    result = evaluate(tokenizer, Clips(), SOUND, tmp_path / "cut")
    assert timeless(result) == timeless(whole)
    assert len(list((tmp_path / "cut" / "sounds").iterdir())) == 3
    assert not (tmp_path / "cut" / "state").exists()


def measured_again(tmp_path, tokenizer, dataset, protocol):
    """Return how many batches are measured after a run that stored all of ``Pictures(4)``."""
    state = tmp_path / "state"
    evaluate(Counting(), Pictures(4), IMAGES, tmp_path, state=state)
    assert len(list(state.iterdir())) == 2
    evaluate(tokenizer, dataset, protocol, tmp_path, state=state)
    return max(tokenizer.calls - 1, 0)


def test_what_has_not_changed_is_not_measured_again(tmp_path):
    assert measured_again(tmp_path, Counting(), Pictures(4), IMAGES) == 0


def test_more_data_keep_what_is_there(tmp_path):
    assert measured_again(tmp_path, Counting(), Pictures(7), IMAGES) == 2


@pytest.mark.parametrize("change", ["tokenizer", "protocol", "pixels", "sources", "damage"])
def test_nothing_stale_is_used(tmp_path, monkeypatch, change):
    tokenizer, dataset, protocol = Counting(), Pictures(4), dict(IMAGES)
    state, wanted = tmp_path / "state", 2
    evaluate(Counting(), Pictures(4), IMAGES, tmp_path, state=state)
    if change == "tokenizer":
        tokenizer = Counting(sha256="1" * 64)
    elif change == "protocol":
        protocol["seed"] = 1
    elif change == "pixels":
        dataset.sizes, wanted = (64, 64, 64, 56), 2  # one unit, its pictures of two sizes
    elif change == "sources":
        monkeypatch.setattr(progress, "sources", lambda: "other")
    else:
        first = sorted(state.iterdir())[0]
        first.write_bytes(first.read_bytes()[:-1] + b"x")
        wanted = 1
    evaluate(tokenizer, dataset, protocol, tmp_path, state=state)
    assert tokenizer.calls - 1 == wanted


def test_what_could_not_be_measured_then_is_not_remembered(tmp_path, monkeypatch):
    protocol = {**IMAGES, "metrics": [*IMAGES["metrics"], {"name": "dists"}]}
    run = ImageRun(PatchMean(), Pictures(), load_protocol(protocol))
    monkeypatch.setenv("TVQ_WEIGHTS", str(tmp_path))
    key = progress.run_key(run)
    monkeypatch.setattr(ImageRun, "twin", lambda self: run)
    for _, metric in run.own.metrics:
        metric.reason = "something else is missing"
    assert progress.run_key(run) != key


def test_rows_that_are_not_the_data_are_an_error(monkeypatch):
    monkeypatch.setattr(progress, "place", lambda: (0, 2))
    monkeypatch.setattr(progress, "_gather", lambda run: True)
    with pytest.raises(DataError) as caught:
        evaluate(PatchMean(), Pictures(4), IMAGES)
    assert str(caught.value) == (
        "evaluate: expected each of 4 items once; got 2 rows. Give every process the same data set."
    )
