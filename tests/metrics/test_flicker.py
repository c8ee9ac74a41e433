import pytest
import torch

from tokenizers_vq import registry
from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.video import flicker


def clip(*greys):
    """A clip of one row of grey frames, ``(1, 3, T, 4, 4)``."""
    levels = torch.tensor(greys, dtype=torch.uint8)
    return levels.view(1, 1, -1, 1, 1).expand(1, 3, -1, 4, 4).contiguous()


@pytest.mark.parametrize(
    ("real", "fake", "added", "lost"),
    [
        ((100, 100, 100), (100, 110, 100), 10, 0),  # shimmers
        ((100, 100, 100), (120, 120, 120), 0, 0),  # an error that stays
        ((0, 30, 60), (0, 0, 0), 0, 30),  # frozen
        ((0, 30, 60), (0, 40, 40), 5, 15),  # 10 too much, then 30 too little
        ((0, 255, 0), (255, 0, 255), 0, 0),  # as much change, though the wrong way
    ],
)
def test_golden_values(real, fake, added, lost):
    found = flicker(clip(*real), clip(*fake))
    assert [float(one) for one in found] == [added, lost]


def test_clips_are_averaged_with_an_interval():
    metric = registry.build("metric", {"name": "flicker"}, resamples=50, seed=0, weights={})
    metric.update(clip(0, 0, 0), clip(0, 8, 0))
    metric.update(clip(0, 0, 0), clip(0, 2, 0))
    scores = metric.compute()
    assert metric.rows()["flicker"] == [8, 2]
    assert (scores["flicker"].value, scores["flicker"].n) == (5, 2)
    low, high = scores["flicker"].interval
    assert 2 <= low < 5 < high <= 8
    assert scores["lost_change"].value == 0
    # 20 log10(255 / 8) = 30.0691 and 20 log10(255 / 2) = 42.1102, their mean
    assert scores["change_psnr"].value == pytest.approx(36.08963, abs=1e-4)
    assert scores["flicker"].higher_is_better is False


def test_a_single_frame_is_refused():
    with pytest.raises(ShapeError, match=r"^flicker: expected two videos of one shape and at"):
        flicker(clip(1), clip(1))
