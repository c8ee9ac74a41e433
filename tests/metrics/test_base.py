import pytest
import torch

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.metrics.base import Metric, bootstrap, mean_interval, mean_score
from tokenizers_vq.metrics.speech import SpeechMetric
from tokenizers_vq.types import Codes


def images(n: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def codes(n: int, seed: int = 0) -> Codes:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(0, 16, (n, 4, 4, 2), generator=generator)
    return Codes(indices, (32, 32), (16, 16))


OPTIONS = {
    "similarity": {"names": ["psnr", "psnr_pooled", "ssim"]},
    "frames": {"of": [{"name": "similarity", "names": ["psnr", "ssim"]}]},
}
VIDEO = {"Frames", "Flicker"}


def pictures(metric: Metric, n: int, seed: int = 0) -> torch.Tensor:
    """Images, or videos of 3 frames where the metric is one of videos."""
    if type(metric).__name__ not in VIDEO:
        return images(n, seed=seed)
    return images(3 * n, seed=seed).unflatten(0, (n, 3)).movedim(1, 2)


def of_pictures(name: str) -> bool:
    """Those of sound have their contract in ``test_speech``."""
    return not issubclass(registry.resolve("metric", name), SpeechMetric)


@pytest.fixture(params=[name for name in registry.names("metric") if of_pictures(name)])
def pair(request: pytest.FixtureRequest) -> tuple[Metric, Metric]:
    config = {"name": request.param, **OPTIONS.get(request.param, {})}
    return tuple(registry.build("metric", config, resamples=20) for _ in range(2))


def values(metric: Metric) -> dict:
    return {name: score.value for name, score in metric.compute().items()}


def approx(value: float | None):
    return value if value is None else pytest.approx(value, rel=1e-6)  # skipped ones are None


def test_two_shards_merge_into_one_result(pair):
    whole, shard = pair
    real, fake = pictures(whole, 6), pictures(whole, 6, seed=1)
    whole.update(real, fake, codes(6))
    wanted = whole.compute()
    whole.reset()
    for metric, rows in ((whole, slice(0, 2)), (shard, slice(2, 6))):
        part = codes(6)
        metric.update(real[rows], fake[rows], Codes(part.indices[rows], (32, 32), (16, 16)))
    whole.merge(shard)
    for name, score in whole.compute().items():
        assert (score.n, score.status) == (wanted[name].n, wanted[name].status)
        assert score.value == approx(wanted[name].value)


def test_reset_forgets_everything(pair):
    metric, fresh = pair
    metric.update(pictures(metric, 2), pictures(metric, 2, seed=1), codes(2))
    metric.reset()
    metric.update(pictures(metric, 3, 5), pictures(metric, 3, 6), codes(3))
    fresh.update(pictures(metric, 3, 5), pictures(metric, 3, 6), codes(3))
    for name, value in values(metric).items():
        assert value == approx(values(fresh)[name])


def test_without_images_every_score_is_skipped(pair):
    assert {score.status for score in pair[0].compute().values()} == {"skipped"}


def test_float_images_are_refused(pair):
    metric, _ = pair
    if type(metric).__name__ == "Codebook":
        return
    with pytest.raises(ShapeError) as error:
        metric.update(pictures(metric, 1).float(), pictures(metric, 1))
    assert "expected uint8 images; got torch.float32. Round and clip them first." in str(error)


def test_bootstrap_interval_of_a_normal_mean():
    sample = torch.randn(400, generator=torch.Generator().manual_seed(1))
    low, high = bootstrap(lambda rows: float(sample[rows].mean()), 400, 2000, 0)
    assert high - low == pytest.approx(2 * 1.96 * float(sample.std()) / 20, rel=0.1)
    assert low < float(sample.mean()) < high


def test_the_fast_interval_of_a_mean_is_the_general_one():
    sample = torch.rand(9, dtype=torch.float64)
    general = bootstrap(lambda rows: float(sample[rows].mean()), 9, 50, 3)
    assert mean_interval(sample, 50, 3) == pytest.approx(general)


def test_bootstrap_is_repeatable_and_needs_two_images():
    scores = [mean_score([1.0, 2.0, 4.0], 100, 7, higher=True) for _ in range(2)]
    assert scores[0] == scores[1]
    assert mean_score([1.0], 100, 7, higher=True).interval is None


def test_negative_resamples_are_refused():
    with pytest.raises(ConfigError) as error:
        registry.build("metric", {"name": "codebook", "resamples": -1})
    assert str(error.value) == (
        "Codebook: expected resamples >= 0; got -1. Use 0 for no intervals."
    )
