"""Two processes that share the items of an evaluation write what one process writes."""

import json
from pathlib import Path

import pytest
import torch
from reference.patch_mean import PROTOCOL, PatchMean, Pictures
from reference.ranks import join_group, run_ranks
from reference.runs import timeless
from reference.sounds import voice
from torch import distributed as dist

from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.evaluation.entry import evaluate
from tokenizers_vq.tokenizer import Tokenizer

METRICS = [*PROTOCOL["metrics"], {"name": "fidelity", "extractor": "efflite0"}]
IMAGES = {**PROTOCOL, "codecs": {"webp": {"method": 0}}, "budgets": [1, 2], "metrics": METRICS}
FOLDED = {
    **IMAGES,
    "codecs": {},
    "anchors": [],
    "metrics": [{"name": "fidelity", "extractor": "efflite0", "keep": 3}],
}
SOUND = {
    "name": "sound",
    "signal": "audio",
    "metrics": [{"name": "si_sdr"}, {"name": "codebook"}],
    "anchors": ["noise_20db"],
    "codecs": {"mulaw": [8]},
    "resamples": 20,
}


class Clips:
    """Five short voices."""

    ids = tuple("abcde")

    def __getitem__(self, index):
        return voice(0.2 + 0.05 * index, seed=index)

    def sha256(self):
        return "c" * 64


def results_of(folder):
    """Return what ``evaluate`` returns for pictures, moments and sound, in this process."""
    torch.manual_seed(0)
    codec = Tokenizer.from_config(tokenizer_config("tiny_seanet", "rvq"), name="t").eval()
    return {
        "images": evaluate(PatchMean(), Pictures(7), IMAGES, folder and folder / "images"),
        "folded": evaluate(PatchMean(), Pictures(9), FOLDED),
        "sound": evaluate(codec, Clips(), SOUND, folder and folder / "sound"),
        "fewer": evaluate(PatchMean(), Pictures(1), {**IMAGES, "anchors": []}),
    }


def work(rank, folder):
    join_group(rank, folder, seconds=60)
    with open(f"{folder}/rank{rank}.json", "w") as file:
        json.dump(results_of(Path(folder)), file)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(work, folder)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the ranks have it: the result says so
    yield json.loads(json.dumps(results_of(None)))
    torch.set_num_threads(threads)


@pytest.mark.parametrize("what", ["images", "sound", "fewer"])
def test_two_processes_write_what_one_writes(ranks, alone, what):
    assert timeless(ranks[0][what]) == timeless(alone[what])


def test_every_process_returns_the_result(ranks):
    assert ranks[0] == ranks[1]


def test_moments_of_two_processes_are_those_of_one(ranks, alone):
    mine, ours = (one["folded"]["metrics"]["rFD-EffLite0"] for one in (alone, ranks[0]))
    assert mine["detail"]["method"] == ours["detail"]["method"] == "moments"
    assert mine["n"] == ours["n"] == 9
    assert ours["value"] == pytest.approx(mine["value"], rel=1e-9)


def test_the_first_process_writes_everything(folder, ranks):
    written = json.loads((folder / "images" / "result.json").read_text())
    assert timeless(written) == timeless(ranks[0]["images"])
    rows = (folder / "images" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(row)["id"] for row in rows] == [f"p/{k}" for k in range(7)]
    assert len(list((folder / "images" / "images").iterdir())) == 7
    assert len(list((folder / "sound" / "sounds").iterdir())) == 3
    assert not (folder / "images" / "state").exists()
