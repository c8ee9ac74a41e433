import math

import pytest
import torch

from tokenizers_vq.metrics import extractors
from tokenizers_vq.metrics.inception_score import InceptionScore, inception_score


def test_certain_and_balanced_predictions_score_the_number_of_classes():
    logits = 100 * torch.eye(4).repeat(3, 1)
    assert inception_score(logits) == pytest.approx(4)


def test_equal_predictions_score_1_and_a_case_by_hand():
    assert inception_score(torch.randn(1, 5).expand(7, 5)) == pytest.approx(1)
    p = torch.tensor([[0.8, 0.2], [0.4, 0.6]])  # mean (0.6, 0.4)
    kl = 0.8 * math.log(0.8 / 0.6) + 0.2 * math.log(0.2 / 0.4)
    kl += 0.4 * math.log(0.4 / 0.6) + 0.6 * math.log(0.6 / 0.4)
    assert inception_score(p.log()) == pytest.approx(math.exp(kl / 2), rel=1e-6)


class Colour:
    """Logits that are the means of the channels."""

    id = "colour"
    dim = 3

    def __call__(self, images):
        x = images.float().mean((2, 3))
        return extractors.Features(x, x / 10)


def test_the_score_of_the_originals_and_the_ratio_are_told(monkeypatch):
    extractors._built.cache_clear()
    monkeypatch.setitem(extractors.EXTRACTORS, "inception", lambda weights: Colour())
    real = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)
    for k in range(6):
        real[k, k % 3] = 255
    metric = InceptionScore(resamples=10)
    metric.update(real, real // 2)
    other = InceptionScore(resamples=10)
    other.update(real, real // 2)
    metric.merge(other)
    score = metric.compute()["rIS"]
    extractors._built.cache_clear()
    assert score.n == 12
    assert score.detail["originals"] == pytest.approx(3, rel=1e-6)
    assert score.detail["ratio"] == pytest.approx(score.value / score.detail["originals"])
    assert 1 < score.value < 3
    assert score.interval[0] <= score.value <= score.interval[1] + 1e-3


def test_without_the_weights_it_is_skipped(monkeypatch, tmp_path):
    monkeypatch.setenv("TVQ_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    extractors._built.cache_clear()
    score = InceptionScore().compute()["rIS"]
    assert score.reason == "weights inception-2015-12-05 (6726825d...) not found"
