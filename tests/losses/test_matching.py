"""Feature matching against sums worked out by hand."""

import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.judgement import Judgement
from tokenizers_vq.losses.matching import FeatureMatching


def judged(*values, weight=1.0):
    maps = [torch.full((1, 1, 2), value) for value in values]
    return Judgement(maps[-1], tuple(maps[:-1]), weight)


REAL = [judged(2.0, 4.0, 1.0), judged(1.0, 1.0, 1.0, weight=0.5)]
FAKE = [judged(1.0, 1.0, 0.0), judged(1.0, 3.0, 1.0, weight=0.5)]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, 1 + 3 + 0.5 * 2),
        ({"logits": True}, 1 + 3 + 1 + 0.5 * 2),
        ({"layers": "mean"}, 2 + 0.5 * 1),
        ({"relative": True}, 1 / 2 + 3 / 4 + 0.5 * 2),
    ],
)
def test_the_published_forms(options, wanted):
    assert FeatureMatching(**options)(REAL, FAKE).item() == pytest.approx(wanted)


def test_no_gradient_flows_to_the_signal():
    real, fake = torch.ones(1, 1, 2, requires_grad=True), torch.zeros(1, 1, 2, requires_grad=True)
    FeatureMatching()([Judgement(real, (real,))], [Judgement(fake, (fake,))]).backward()
    assert real.grad is None
    assert fake.grad.abs().sum() > 0


def test_errors():
    with pytest.raises(ConfigError) as error:
        FeatureMatching()([Judgement(torch.ones(1))], [Judgement(torch.ones(1))])
    assert str(error.value) == (
        "adv/features: expected a discriminator that shows its features; got logits only. "
        "Take the term out of the weights, or use one of the audio discriminators."
    )
    with pytest.raises(ConfigError, match="feature matching of layers: there is no 'max'"):
        FeatureMatching(layers="max")
