import math

import pytest
import torch
from reference.sounds import build, hide, voice

from tokenizers_vq import registry
from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.speech import Column, SpeechMetric, Unscorable, ratio_score


class Peak(SpeechMetric):
    """The middle sample of the reconstruction; fails on silence."""

    columns = (Column("peak", "", True),)
    rate = 8000
    packages = (("json", "json"),)

    def score(self, real, fake):
        self.seen = len(fake)
        if not fake.any():
            raise Unscorable("silent reconstruction")
        middle = float(fake[len(fake) // 2])
        return {"peak": middle if middle < 0.9 else math.inf}


def test_clips_that_cannot_be_scored_are_counted_and_left_out():
    metric = Peak(resamples=20)
    ones = torch.full((1, 1, 800), 0.5)
    for level in (0.5, 0.25, 0.0, 0.95):
        metric.update(ones, torch.full((1, 1, 800), level))
    score = metric.compute()["peak"]
    assert score.n == 2
    assert score.value == pytest.approx(0.375, abs=0.01)
    assert score.detail["unscored"] == {"silent reconstruction": 1, "no finite value": 1}
    assert [math.isfinite(value) for value in metric.rows()["peak"]] == [True, True, False, False]


def test_every_score_says_how_clips_were_fed():
    metric = Peak(sample_rate=16000, resamples=0)
    metric.update(torch.ones(1, 1, 800) / 2, torch.ones(1, 1, 800) / 2)
    assert metric.seen == 400
    detail = metric.compute()["peak"].detail
    assert detail["sample_rate"] == 8000
    assert detail["resampling"].startswith("windowed sinc, Hann, 6 zero crossings")
    assert detail["chunking"] == "whole clip"
    assert detail["versions"] == {"json": None}  # in Python itself, no distribution


def test_without_any_scored_clip_the_score_is_a_skip_with_the_counts():
    metric = Peak(resamples=0)
    metric.update(torch.ones(2, 1, 8), torch.zeros(2, 1, 8))
    score = metric.compute()["peak"]
    assert (score.value, score.status) == (None, "skipped")
    assert score.reason == "no clip could be scored (2 x silent reconstruction)"
    metric.reset()
    assert metric.compute()["peak"].reason == "no image was scored"


def test_a_missing_package_is_a_named_skip(monkeypatch):
    hide(monkeypatch, "json")
    metric = Peak(resamples=0)
    metric.update(torch.ones(1, 1, 8), torch.ones(1, 1, 8))
    assert metric.compute()["peak"].reason == (
        'package json not found (pip install "tokenizers_vq[speech]")'
    )


@pytest.mark.parametrize(
    ("name", "modules", "reason"),
    [
        ("distillmos", ["distillmos"], "package distillmos not found"),
        ("dnsmos", ["speechmos", "librosa"], "package speechmos and librosa not found"),
        ("plcmos", ["onnxruntime"], "package onnxruntime not found"),
        ("visqol", ["visqol"], "package visqol-python not found"),
        ("wer", ["faster_whisper"], "package faster-whisper not found"),
        ("voicing", ["torchcrepe"], "package torchcrepe not found"),
        ("pesq", ["pesq"], "package pesq not found"),
        ("stoi", ["pystoi"], "package pystoi not found"),
    ],
)
def test_each_metric_names_what_it_misses(monkeypatch, name, modules, reason):
    from tokenizers_vq.metrics import speech

    monkeypatch.setattr(speech, "find_spec", lambda m: None if m in modules else True)
    metric = build(name)
    metric.update(voice(0.1)[None], voice(0.1)[None])
    scores = metric.compute()
    assert scores
    wanted = f'{reason} (pip install "tokenizers_vq[speech]")'
    assert {score.reason for score in scores.values()} == {wanted}


@pytest.mark.parametrize("name", registry.names("metric"))
def test_without_clips_every_score_is_skipped_and_silence_has_none(name):
    if issubclass(registry.resolve("metric", name), SpeechMetric):
        metric = build(name)
        assert {score.status for score in metric.compute().values()} == {"skipped"}
        metric.update(torch.zeros(1, 1, 100), torch.zeros(1, 1, 100))
        assert {score.value for score in metric.compute().values()} == {None}


def test_merging_adds_clips_and_counts():
    first, second = Peak(resamples=0), Peak(resamples=0)
    first.update(torch.ones(1, 1, 8), torch.full((1, 1, 8), 0.5))
    second.update(torch.ones(1, 1, 8), torch.zeros(1, 1, 8))
    first.merge(second)
    score = first.compute()["peak"]
    assert (score.n, score.detail["unscored"]) == (1, {"silent reconstruction": 1})


def test_two_lengths_are_refused():
    with pytest.raises(ShapeError) as caught:
        Peak().update(torch.ones(1, 1, 8), torch.ones(1, 1, 9))
    assert str(caught.value) == (
        "Peak: expected two batches of one shape; got (1, 1, 8) and (1, 1, 9). "
        "Cut the reconstruction to its original."
    )


def test_ratios_are_pooled():
    score = ratio_score([1.0, 3.0, math.nan], [10.0, 10.0, 10.0], 20, 0, unit="x")
    assert (score.value, score.n, score.unit) == (0.2, 2, "x")
    low, high = score.interval
    assert 0.1 <= low <= 0.2 <= high <= 0.3
