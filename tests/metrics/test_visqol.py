import types

import pytest
from reference.sounds import assert_ranks, build, measured, pretend, voice

from tokenizers_vq.metrics import visqol


@pytest.fixture
def api(monkeypatch):
    """A stand-in for the package, with the lattice runtime beside it."""
    pretend(monkeypatch, "visqol")
    monkeypatch.setattr(visqol, "find_spec", lambda module: True)
    heard = []

    def measure(real, fake, rate):
        heard.append((len(real), str(fake.dtype), rate))
        if fake.max() < 0.01:
            raise ValueError("no patches\nat all")
        return types.SimpleNamespace(moslqo=4.25)

    monkeypatch.setattr(visqol, "_api", lambda: types.SimpleNamespace(measure_from_arrays=measure))
    return heard


def test_clips_go_in_at_16_khz(api):
    score = measured("visqol", voice(1, rate=24000), voice(1, rate=24000), sample_rate=24000)
    assert score["visqol"].value == 4.25
    assert api == [(16000, "float64", 16000)]
    assert score["visqol"].detail["mapping"] == "lattice"


def test_what_it_cannot_score_is_counted(api):
    metric = build("visqol", resamples=0)
    x = voice(1)
    for real, fake in ((x, 0.005 * x), (x[:, :7999], x[:, :7999]), (x, 0 * x), (x, x)):
        metric.update(real[None], fake[None])
    score = metric.compute()["visqol"]
    assert (score.value, score.n) == (4.25, 1)
    assert score.detail["unscored"] == {
        "ViSQOL failed (no patches)": 1,
        "shorter than 8,000 samples": 1,
        "silent reconstruction": 1,
    }


def test_without_the_lattice_runtime_it_refuses(monkeypatch):
    pretend(monkeypatch, "visqol")
    monkeypatch.setattr(visqol, "find_spec", lambda module: None)
    assert build("visqol").compute()["visqol"].reason == (
        "package ai-edge-litert, ViSQOL's lattice runtime, not found "
        '(pip install "tokenizers_vq[speech]")'
    )


@pytest.mark.slow
def test_equals_the_package_called_directly_and_ranks_damage():
    from visqol import VisqolApi

    x, y = voice(2), 0.3 * voice(2)
    api = VisqolApi()
    api.create(mode="speech", use_lattice_model=True)
    wanted = api.measure_from_arrays(x[0].double().numpy(), y[0].double().numpy(), 16000)
    assert measured("visqol", x, y)["visqol"].value == pytest.approx(wanted.moslqo, abs=1e-6)
    assert_ranks("visqol", x)
