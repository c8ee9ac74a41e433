import numpy as np
import pytest
import torch

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.metrics import extractors
from tokenizers_vq.metrics.fidelity import Fidelity, frechet_distance, kernel_distance


def by_eigenvalues(x: np.ndarray, y: np.ndarray) -> float:
    """The textbook route: covariances, and the eigenvalues of their product."""
    sx, sy = (np.cov(t, rowvar=False) for t in (x, y))
    root = np.sqrt(np.maximum(np.linalg.eigvals(sx @ sy).real, 0)).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(sx) + np.trace(sy) - 2 * root)


def features(n: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(2, 0.1, d)


def test_frechet_equals_the_eigenvalue_route_when_n_exceeds_d():
    x = features(300, 16)
    y = features(200, 16, 1) * 1.3 + 0.2
    assert frechet_distance(x, y) == pytest.approx(by_eigenvalues(x.numpy(), y.numpy()), rel=1e-6)


def test_frechet_of_a_rank_deficient_set_is_exact():
    x = features(20, 64)
    assert frechet_distance(x, x.clone()) < 1e-9
    shift = torch.zeros(64, dtype=torch.float64)
    shift[3] = 0.7
    assert frechet_distance(x, x + shift) == pytest.approx(0.49, abs=1e-9)
    assert frechet_distance(x, x * 3) == pytest.approx(
        float(4 * x.mean(0).square().sum() + 4 * x.var(0).sum()), rel=1e-9
    )


def test_frechet_of_known_gaussians():
    d = 16
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, d, generator=generator)
    y = torch.randn(20_000, d, generator=generator) * 2 + 1
    assert frechet_distance(x, y) == pytest.approx(d * 1.0 + d * 1.0, rel=0.01)


def test_kernel_distance_of_a_set_with_itself_is_zero_and_equals_a_loop():
    x = features(12, 5)
    y = x + 0.3 * features(12, 5, 1)
    assert kernel_distance(x, x) == pytest.approx(0, abs=1e-12)
    a, b = x.numpy(), y.numpy()

    def mean(p, q):
        terms = [(p[i] @ q[j] / 5 + 1) ** 3 for i in range(12) for j in range(12) if i != j]
        return np.mean(terms)

    assert kernel_distance(x, y) == pytest.approx(mean(a, a) + mean(b, b) - 2 * mean(a, b))


def test_wrong_shapes_are_refused():
    with pytest.raises(ShapeError) as error:
        frechet_distance(features(1, 4), features(5, 4))
    assert str(error.value) == (
        "frechet_distance: expected at least 2 rows on both sides; got 1 and 5. Give more images."
    )
    with pytest.raises(ShapeError) as error:
        kernel_distance(features(3, 4), features(5, 4))
    assert str(error.value) == (
        "kernel_distance: expected two sets of one shape with at least 2 rows; got (3, 4) and "
        "(5, 4). Pair the images."
    )


def test_rfid_without_the_published_weights_is_skipped(monkeypatch, tmp_path):
    monkeypatch.setenv("TVQ_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    extractors._built.cache_clear()
    metric = Fidelity("inception")
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    metric.update(images, images)
    scores = metric.compute()
    assert set(scores) == {"rFID", "rKID"}
    assert scores["rFID"].status == "skipped"
    assert scores["rFID"].reason == "weights inception-2015-12-05 (6726825d...) not found"


class Statistics:
    """A tiny extractor: means and deviations per channel."""

    id = "channel-statistics"
    dim = 6

    def __call__(self, images):
        x = images.float().flatten(2)
        pooled = torch.cat([x.mean(2), x.std(2)], 1)
        return extractors.Features(pooled, pooled)


def test_accumulator_names_its_extractor_and_orders_damage(monkeypatch):
    extractors._built.cache_clear()
    monkeypatch.setitem(extractors.EXTRACTORS, "efflite0", lambda weights: Statistics())
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 200, (12, 3, 32, 32), generator=generator, dtype=torch.uint8)
    values = []
    for shift in (0, 5, 20):
        metric = Fidelity(resamples=20)
        metric.update(real[:8], real[:8] + shift)
        metric.update(real[8:], real[8:] + shift)
        values.append(metric.compute()["rFD-EffLite0"])
    extractors._built.cache_clear()
    assert values[0].value < 1e-9
    assert values[0].value < values[1].value < values[2].value
    assert (values[2].n, values[2].detail["extractor"]) == (12, "channel-statistics")
    assert values[2].interval[0] <= values[2].interval[1]


@pytest.fixture
def statistics(monkeypatch):
    extractors._built.cache_clear()
    monkeypatch.setitem(extractors.EXTRACTORS, "inception", lambda weights: Statistics())
    yield
    extractors._built.cache_clear()


def pairs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 200, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    noise = torch.randint(0, 50, real.shape, generator=generator, dtype=torch.uint8)
    return real, real + noise


@pytest.mark.usefixtures("statistics")
def test_more_images_than_are_kept_give_the_same_distance_from_moments():
    real, fake = pairs(40)
    kept, folded = Fidelity("inception"), Fidelity("inception", keep=15)
    for start in range(0, 40, 8):
        for metric in (kept, folded):
            metric.update(real[start : start + 8], fake[start : start + 8])
    assert folded.real == []
    half = Fidelity("inception", keep=15)
    half.update(real[:20], fake[:20])
    rest = Fidelity("inception", keep=25)
    rest.update(real[20:], fake[20:])
    half.merge(rest)
    expected = kept.compute()["rFID"]
    for metric in (folded, half):
        scores = metric.compute()
        assert scores["rFID"].value == pytest.approx(expected.value, rel=1e-6)
        assert (scores["rFID"].n, scores["rFID"].interval) == (40, None)
        assert scores["rFID"].detail["method"] == "moments"
        assert scores["rKID"].reason == "the features of more than 15 images are not kept"
    assert expected.detail["method"] == "singular values"


@pytest.mark.usefixtures("statistics")
def test_fewer_images_than_dimensions_are_told():
    real, fake = pairs(8)
    metric = Fidelity("inception", resamples=0)
    metric.update(real[:6], fake[:6])
    assert metric.compute()["rFID"].detail["below_dim"] is True
    metric.update(real[6:], fake[6:])
    assert metric.compute()["rFID"].detail["below_dim"] is False


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ConfigError) as error:
        Fidelity("efflite0", layer="spatial")
    assert "extractor: there is no 'efflite0/spatial'; choose one of dinov2" in str(error.value)
