import pytest
import torch

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.fidelity import frechet_distance
from tokenizers_vq.metrics.gaussians import Moments, moments_distance


def features(n: int, d: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(2, 0.1, d, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scale + 1000


def moments(x: torch.Tensor, *sizes: int) -> Moments:
    it = Moments(x.shape[1])
    for part in x.split(list(sizes) or len(x)):
        it.add(part)
    return it


def test_moments_are_mean_and_covariance_whatever_the_batches():
    x = features(50)
    it = moments(x, 7, 13, 30)
    assert it.n == 50
    torch.testing.assert_close(it.mean, x.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(it.covariance, x.T.cov(), rtol=1e-9, atol=1e-10)


def test_a_large_mean_in_float32_costs_no_digits():
    x = features(200).float()
    torch.testing.assert_close(moments(x, 50, 150).covariance, x.double().T.cov(), rtol=1e-9,
                               atol=1e-10)  # fmt: skip


def test_merging_is_adding():
    x = features(60)
    one, other = moments(x[:25]), moments(x[25:])
    one.absorb(other.state())
    one.absorb(Moments(12).state())
    torch.testing.assert_close(one.mean, x.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(one.covariance, x.T.cov(), rtol=1e-9, atol=1e-10)
    empty = Moments(12)
    empty.absorb(moments(x).state())
    torch.testing.assert_close(empty.covariance, x.T.cov(), rtol=1e-9, atol=1e-10)


def test_the_distance_is_that_of_the_features():
    x, y = features(80), features(90, seed=1) * 1.2 - 200
    expected = frechet_distance(x, y)
    assert moments_distance(moments(x, 40, 40), moments(y)) == pytest.approx(expected, rel=1e-9)


def test_fewer_features_than_dimensions_cost_round_off_and_no_more():
    x, y = features(20, 64), features(20, 64, 1)
    expected = frechet_distance(x, y)
    assert moments_distance(moments(x), moments(y)) == pytest.approx(expected, abs=1e-4)
    assert moments_distance(moments(x), moments(x)) < 1e-4


def test_one_feature_has_no_covariance():
    with pytest.raises(ShapeError) as error:
        _ = moments(features(1)).covariance
    assert str(error.value) == "Moments: expected at least 2 features; got 1. Give more images."
