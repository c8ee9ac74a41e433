"""Pictures small enough to damage in many ways, in a feature space of mean colours."""

import pytest
import torch

from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.data.transforms import to_uint8
from tokenizers_vq.metrics import extractors


class Colours:
    id, dim = "colours", 3

    def __call__(self, images):
        x = images.float().mean((2, 3))
        return extractors.Features(x, x)


@pytest.fixture
def pixels(monkeypatch):
    extractors._built.cache_clear()
    monkeypatch.setitem(extractors.EXTRACTORS, "efflite0", lambda weights: Colours())
    data = SyntheticImages(5, 32)
    yield to_uint8(torch.stack([data[k] for k in range(5)]))
    extractors._built.cache_clear()
