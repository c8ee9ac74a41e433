import numpy as np
import pytest
import torch

from tokenizers_vq.data.synthetic_shapes import SyntheticShapes, _assembled
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional import solids


def test_an_item_is_the_surface_then_what_is_near_then_everywhere():
    data = SyntheticShapes(3, surface=40, queries=60)
    x = data[1]
    assert (x.shape, x.dtype) == ((4, 100), torch.float32)
    assert not x[3, :40].any()
    assert x[3, 40:].abs().gt(0).all()
    assert x[3, 40:70].abs().mean() < 0.1 < x[3, 70:].abs().mean()
    assert x.abs().max() <= 1


def test_the_distances_are_those_of_the_solid():
    data = SyntheticShapes(6, surface=50, queries=50)
    for index in range(6):
        x = data[index].double().numpy()
        assert data.solid(index).distance(x[:3].T) == pytest.approx(x[3], abs=1e-5)


def test_half_of_the_shapes_of_many_parts_are_made_of_pairs():
    pairs = 0
    for index in range(40):
        whole = _assembled(6, np.random.default_rng(index))
        while not isinstance(whole, solids.Union):  # turned as a whole, or carved
            whole = whole.solid
        pairs += any(isinstance(part.solid, solids.Moved) for part in whole.parts[1:])
    assert 10 < pairs < 30


def test_of_carved_shapes_something_is_left():
    left = []
    for index in range(120):
        whole, generator = _assembled(1, np.random.default_rng(index)), np.random.default_rng(0)
        whole = whole.solid if isinstance(whole, solids.Moved) else whole
        if isinstance(whole, solids.Carved):
            left.append((whole.cut.distance(whole.solid.surface(300, generator)) > 0).mean())
    assert len(left) > 15
    assert min(left) > 0.1


def test_shapes_fill_the_box_and_are_in_it():
    data = SyntheticShapes(12, surface=400, queries=0)
    reach = np.array([data[index][:3].abs().max() for index in range(12)])
    assert ((reach > 0.85) & (reach < 0.97)).all()


def test_epochs_draw_other_points_of_the_same_shape():
    data = SyntheticShapes(2, surface=20, queries=20)
    assert torch.equal(data[0], data[0, 0])
    assert not torch.equal(data[0, 0], data[0, 1])
    again = SyntheticShapes(2, surface=20, queries=20)
    assert torch.equal(data[3, 1], again[3, 1])
    assert data.sha256() == again.sha256()
    assert data.sha256() != SyntheticShapes(2, surface=20, queries=20, seed=1).sha256()


def test_no_shapes_are_refused():
    with pytest.raises(ConfigError) as error:
        SyntheticShapes(0)
    assert str(error.value) == (
        "SyntheticShapes: expected n, surface and parts of 1 or more and queries of 0 or more; got "
        "n=0, surface=512, parts=6, queries=1024."
    )
