"""Inception Score of the reconstructions, beside that of the originals.

Reference:
    Salimans et al., Improved Techniques for Training GANs, 2016, section 4. One split over all
    images, as TiTok reports it; other suites average 10 splits, which gives lower values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenizers_vq.metrics.base import Score, bootstrap
from tokenizers_vq.metrics.extractors import Features
from tokenizers_vq.metrics.feature_sets import FeatureSets


def inception_score(logits: Tensor) -> float:
    """Return exp of the mean KL divergence between p(y | x) and the mean of p(y | x).

    Args:
        logits: ``(n, classes)``, of the published network without the bias of its last layer.
    """
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    mean = p.mean(0)
    # a class that no row gives any probability to adds 0, not 0 times infinity
    negative_entropies = torch.linalg.vecdot(p, log_p)
    return float((negative_entropies.mean() - torch.xlogy(mean, mean).sum()).exp())


class InceptionScore(FeatureSets):
    """``rIS``: only its ratio to the score of the originals, in the detail, means something."""

    names = ("rIS",)

    def select(self, features: Features) -> Tensor:
        """Return the logits."""
        return features.logits

    def scores(self, real: Tensor, fake: Tensor) -> dict[str, Score]:
        """Return ``rIS`` of the reconstructions."""
        interval = bootstrap(
            lambda rows: inception_score(fake[rows]), len(fake), self.resamples, self.seed
        )
        value, originals = inception_score(fake), inception_score(real)
        detail = {"originals": originals, "ratio": value / originals, "splits": 1}
        detail |= self.detail()
        return {"rIS": Score(value, len(fake), interval, "", True, detail=detail)}
