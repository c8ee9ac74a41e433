import math

import pytest
import torch

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics import extractors
from tokenizers_vq.metrics.cmmd import CMMD, cmmd


def test_two_opposite_points_by_hand():
    # unit vectors at distance 2: kernel exp(-4 / 200)
    x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[-0.5, 0.0]])
    assert cmmd(x, y) == pytest.approx(1000 * (2 - 2 * math.exp(-0.02)), rel=1e-9)


def test_it_equals_a_loop_over_all_pairs():
    x, y = torch.randn(5, 3).double(), torch.randn(7, 3).double() + 1
    a, b = (one / one.norm(dim=1, keepdim=True) for one in (x, y))

    def mean(p, q):
        return sum(math.exp(-float((u - v).square().sum()) / 200) for u in p for v in q) / (
            len(p) * len(q)
        )

    assert cmmd(x, y) == pytest.approx(1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b)), rel=1e-6)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-9)


def test_an_empty_side_is_refused():
    with pytest.raises(ShapeError) as error:
        cmmd(torch.zeros(0, 3), torch.zeros(2, 3))
    assert str(error.value) == "cmmd: expected at least 1 row on both sides; got none. Give images."


def test_without_the_weights_it_is_skipped(monkeypatch, tmp_path):
    monkeypatch.setenv("TVQ_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    extractors._built.cache_clear()
    assert CMMD().compute()["CMMD"].reason == (
        "weights clip-vitl14-336 (vit_large_patch14_clip_336.openai.safetensors) not found"
    )
