import math

import pytest
import torch

from tokenizers_vq.functional.places import anchors, fourier, projected, views


def test_anchors_are_even_and_neighbours_are_near():
    places = anchors(128)
    octant = ((places >= 0).long() * torch.tensor([4, 2, 1])).sum(1)
    assert octant.bincount().tolist() == [16] * 8
    assert (octant.diff() >= 0).all()  # 16 neighbours lie in one octant
    step = places.diff(dim=0).norm(dim=1).mean()
    assert step < 0.5 * torch.cdist(places, places).mean()


def test_waves_by_hand():
    waves = fourier(torch.tensor([[0.5, 0.25, 0.0]]), 2)[0]
    sines = [1, 0, math.sqrt(0.5), 1, 0, 0]
    cosines = [0, -1, math.sqrt(0.5), 0, 1, 1]
    assert waves.tolist() == pytest.approx(sines + cosines, abs=1e-6)


def test_views_by_hand():
    points = torch.tensor([[[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]])
    places = torch.tensor([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0]])
    seen = views(points, places, 1)[0].unflatten(-1, (3, 10))  # (M, sharpness, 10)
    inside, outside = seen[:, 0]  # 4: squares of 0.25 twice; of 1 and 4
    waves = [0, 0, 0, 0, 1, 1]  # sines cancel, the cosine of pi / 2 is 0
    assert inside.tolist() == pytest.approx([0, 0, 0, 1, *waves], abs=1e-5)
    near = 1 / (1 + math.exp(-12))
    far = math.sqrt(-math.log((math.exp(-4) + math.exp(-16)) / 2) / 4)
    assert outside[:4].tolist() == pytest.approx(
        [2 * (near * 0.5 - (1 - near) * 0.5 - 1.5), 0, 0, 2 * far]
    )


def test_cells_are_apart_in_their_plane():
    centres = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5]])  # one per plane
    apart = projected(centres, torch.tensor([[0.0, 0.0, 0.0], [0.5, 1.0, 2.0]]))
    assert apart[:, 0].tolist() == pytest.approx([0.25] * 3)
    assert apart[:, 1].tolist() == pytest.approx([1.0, 0.25 + 4, 2.25 + 0.25])
