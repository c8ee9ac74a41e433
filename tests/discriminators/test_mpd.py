"""MPD: published sizes, folding, levels, errors."""

import pytest
import torch

from tokenizers_vq.discriminators.mpd import MPD, PeriodJudge
from tokenizers_vq.errors import ShapeError


def parameters(**options):
    """Return the number of parameters without drawing them."""
    with torch.device("meta"):
        return sum(p.numel() for p in MPD(**options).parameters())


def test_it_has_the_published_numbers_of_parameters():
    assert parameters() == 41_105_770
    assert parameters(width=16, post=2) == 10_284_730  # X-Codec-2


def test_a_period_is_a_column():
    judge = PeriodJudge(3, 1, 3, always=False, skip=0)
    x = torch.arange(7.0)[None, None]
    rows = [[0, 1, 2], [3, 4, 5], [6, 5, 4]]  # the end reflected
    assert judge.view(x)[0, 0].tolist() == rows
    assert judge.view(x[..., :6]).shape == (1, 1, 2, 3)
    assert PeriodJudge(3, 1, 3, always=True, skip=0).view(x[..., :6]).shape == (1, 1, 3, 3)


def test_every_judge_counts_alike_and_shows_its_layers():
    judged = MPD((2, 3), width=2, average=True, skip=1).judge(torch.randn(2, 2, 400))
    assert [one.weight for one in judged] == [0.5, 0.5]
    assert [len(one.features) for one in judged] == [4, 4]
    assert judged[0].logits.shape[:2] == (4, 1)  # channels are items


def test_level_makes_it_deaf_to_gain_and_offset():
    critic = MPD((2, 3), width=2, level=True)
    x = torch.randn(1, 1, 300)
    torch.testing.assert_close(critic(x), critic(3 * x + 0.5), atol=1e-5, rtol=1e-4)


def test_errors():
    with pytest.raises(ShapeError) as error:
        MPD((2, 3), width=2)(torch.zeros(1, 1, 5))
    assert str(error.value) == ("MPD: expected at least 6 samples; got 5. Use longer crops.")
    with pytest.raises(ShapeError) as error:
        MPD((2, 3), width=2)(torch.zeros(1, 3, 8, 8))
    assert str(error.value) == ("MPD: expected shape (B, C, T); got (1, 3, 8, 8). It judges sound.")
