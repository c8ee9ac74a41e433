import numpy as np
import pytest
import torch
from reference.sounds import measured, pretend, voice

KEYS = ("ovrl_mos", "sig_mos", "bak_mos", "p808_mos")


@pytest.fixture
def package(monkeypatch):
    """A stand-in that refuses what the package refuses."""

    def run(x, rate):
        assert rate == 16000
        assert x.dtype == np.float32
        assert np.abs(x).max() <= 1
        return {key: k + len(x) / 16000 for k, key in enumerate(KEYS)}

    pretend(monkeypatch, "onnxruntime")
    pretend(monkeypatch, "librosa")
    pretend(monkeypatch, "speechmos")
    pretend(monkeypatch, "speechmos.dnsmos", run=run)


def test_four_scores_of_the_reconstruction_by_their_names(package):
    scores = measured("dnsmos", voice(1, rate=24000), voice(1, rate=24000), sample_rate=24000)
    values = {name: score.value for name, score in scores.items()}
    assert values == {"dnsmos_ovrl": 1, "dnsmos_sig": 2, "dnsmos_bak": 3, "dnsmos_p808": 4}


def test_overshoots_of_the_resampler_are_clipped(package):
    square = torch.sign(torch.sin(torch.arange(24000) / 9))[None]
    assert measured("dnsmos", square, square, sample_rate=24000)["dnsmos_sig"].value == 2


def test_silence_is_counted(package):
    score = measured("dnsmos", voice(0.1), 0 * voice(0.1))["dnsmos_bak"]
    assert score.reason == "no clip could be scored (1 x silent reconstruction)"


@pytest.mark.slow
def test_equals_the_package_called_directly():
    from speechmos import dnsmos

    x = voice(2)
    wanted = dnsmos.run(x[0].numpy(), 16000)
    scores = measured("dnsmos", x, x)
    for name, key in zip(("ovrl", "sig", "bak", "p808"), KEYS, strict=True):
        assert scores[f"dnsmos_{name}"].value == pytest.approx(wanted[key], abs=1e-6)
