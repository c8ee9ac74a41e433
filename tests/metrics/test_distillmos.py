import pytest
import torch
from reference.sounds import build, measured, pretend, voice

from tokenizers_vq.metrics import distillmos


@pytest.fixture
def model(monkeypatch):
    """A stand-in that says what it heard."""
    pretend(monkeypatch, "distillmos")
    heard = []

    def score(x):
        heard.append(x)
        return 1 + x.abs().amax(1, keepdim=True)

    monkeypatch.setattr(distillmos, "_model", lambda: score)
    return heard


def test_the_reconstruction_alone_is_scored_at_16_khz(model):
    fake = 0.5 * torch.ones(1, 24000)
    score = measured("distillmos", voice(1, rate=24000), fake, sample_rate=24000)["distillmos"]
    assert [tuple(x.shape) for x in model] == [(1, 16000)]
    assert score.value == pytest.approx(1.5, abs=0.05)
    assert score.detail["chunking"].startswith("windows of 7.68 s")


def test_silence_is_counted(model):
    metric = build("distillmos")
    metric.update(voice(0.1)[None], 0 * voice(0.1)[None])
    assert metric.compute()["distillmos"].detail["unscored"] == {"silent reconstruction": 1}


@pytest.mark.slow
def test_equals_the_package_called_directly():
    from distillmos import ConvTransformerSQAModel

    x = voice(9)
    with torch.no_grad():
        wanted = float(ConvTransformerSQAModel().eval()(x))
    assert measured("distillmos", x, x)["distillmos"].value == pytest.approx(wanted, abs=1e-5)
