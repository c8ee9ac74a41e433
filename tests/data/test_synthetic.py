import pytest
import torch

from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.errors import ConfigError


def test_pictures_are_deterministic_different_and_in_range():
    dataset = SyntheticImages(n=8, size=32, seed=1)
    again = SyntheticImages(n=8, size=32, seed=1)
    items = [dataset[i] for i in range(8)]
    assert all(x.shape == (3, 32, 32) and x.dtype == torch.float32 for x in items)
    assert all(x.is_contiguous() and x.min() >= -1 and x.max() <= 1 for x in items)
    assert all(torch.equal(x, again[5, i]) for i, x in enumerate(items))
    assert len({x.numpy().tobytes() for x in items}) == 8
    assert not torch.equal(items[0], SyntheticImages(n=8, size=32, seed=2)[0])
    assert dataset.sha256() == again.sha256() != SyntheticImages(n=8, size=32, seed=2).sha256()


def test_pictures_have_both_smooth_and_sharp_parts():
    x = torch.stack(list(SyntheticImages(n=16, size=64)))
    step = (x[..., 1:] - x[..., :-1]).abs()
    assert x.std() > 0.3
    assert step.median() < 0.06
    assert step.quantile(0.99) > 0.3


@pytest.mark.parametrize("size", [1, 2, 7])
def test_any_size(size):
    assert [tuple(x.shape) for x in SyntheticImages(n=6, size=size)] == [(3, size, size)] * 6


def test_an_empty_set_is_an_error():
    with pytest.raises(ConfigError) as error:
        SyntheticImages(n=0)
    assert str(error.value) == (
        "SyntheticImages: expected n and size of 1 or more; got n=0, size=64."
    )
