import numpy as np

from tokenizers_vq.data.points import NEAR, SIGNAL, sampled
from tokenizers_vq.functional.solids import Sphere


def test_places_are_near_the_surface_by_two_widths_then_even():
    ball, generator = Sphere(0.5), np.random.default_rng(0)
    surface = ball.surface(5 + 4000, generator)
    x = sampled(surface, 5, 8000, ball.distance, generator).numpy()
    assert x.shape == (SIGNAL.channels, 8005)
    near = x[3, 5:4005]
    for start, width in enumerate(reversed(NEAR)):  # across the surface a normal of that width
        assert abs(near[start::2].std() / width - 1) < 0.15
    even = x[:3, 4005:]
    assert np.abs(even.mean(1)).max() < 0.05
    assert abs((x[3, 4005:] < 0).mean() - np.pi / 6 / 8) < 0.02  # of the box of side 2


def test_the_surface_alone():
    ball, generator = Sphere(0.5), np.random.default_rng(0)
    x = sampled(ball.surface(9, generator), 9, 0, ball.distance, generator)
    assert x.shape == (4, 9)
    assert not x[3].any()
