import pytest
import torch

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.metrics.similarity import psnr, ssim
from tokenizers_vq.metrics.video import frames_of

CONFIG = {"name": "frames", "of": [{"name": "similarity", "names": ["psnr", "ssim"]}]}


def videos(clips=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, clips, 3, 4, 12, 12), dtype=torch.uint8, generator=generator)


def built(config=CONFIG, **options):
    return registry.build(
        "metric", config, **{"resamples": 50, "seed": 0, "weights": {}, **options}
    )


def test_the_mean_of_the_frames_of_each_clip():
    real, fake = videos()
    metric = built()
    metric.update(real[:2], fake[:2])
    metric.update(real[2:], fake[2:])
    rows = metric.rows()
    for k in range(3):
        frames = [x[k].transpose(0, 1) for x in (real, fake)]
        assert rows["psnr"][k] == pytest.approx(float(psnr(*frames).mean()))
        assert rows["later_psnr"][k] == pytest.approx(float(psnr(*frames)[1:].mean()))
        assert rows["ssim"][k] == pytest.approx(float(ssim(*frames).mean()))
    scores = metric.compute()
    assert list(scores) == ["psnr", "later_psnr", "ssim"]
    assert scores["psnr"].n == 3  # clips, not frames
    assert scores["psnr"].unit == "dB"
    low, high = scores["psnr"].interval
    assert low <= scores["psnr"].value <= high


def test_every_place_has_its_own_mean():
    real = torch.zeros(2, 3, 2, 12, 12, dtype=torch.uint8)
    fake = real.clone()
    fake[:, :, 0], fake[:, :, 1] = 51, 5
    metric = built()
    metric.update(real, fake)
    score = metric.compute()["psnr"]
    assert score.detail["per_frame"] == pytest.approx([13.97940, 34.15140], abs=1e-4)
    assert score.value == pytest.approx(24.06540, abs=1e-4)
    assert metric.compute()["later_psnr"].value == pytest.approx(34.15140, abs=1e-4)


def test_what_is_missing_is_skipped_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("TVQ_WEIGHTS", raising=False)
    metric = built({"name": "frames", "of": [{"name": "perceptual", "names": ["lpips-alex"]}]})
    metric.update(*videos())
    score = metric.compute()["lpips-alex"]
    assert (score.status, score.value) == ("skipped", None)
    assert score.reason == "weights alexnet-owt (7be5be79...) not found"


def test_two_halves_merge_to_the_whole():
    real, fake = videos()
    whole, first, second = built(), built(), built()
    whole.update(real, fake)
    first.update(real[:1], fake[:1])
    second.update(real[1:], fake[1:])
    first.merge(second)
    assert first.compute() == whole.compute()
    first.reset()
    assert first.compute()["psnr"].status == "skipped"


def test_the_frames_of_a_video_are_one_tensor():
    real, fake = videos()
    frames = frames_of(real)
    assert frames_of(fake) is frames_of(fake)
    assert frames_of(real) is frames


def test_only_metrics_that_nest_take_parts():
    with pytest.raises(ConfigError, match="option 'resamples' takes no nested parts"):
        built({"name": "flicker", "resamples": {"name": "similarity"}})
