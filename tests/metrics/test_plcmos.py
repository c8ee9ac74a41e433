import numpy as np
import pytest
from reference.sounds import measured, pretend, voice


@pytest.fixture
def package(monkeypatch):
    """A stand-in that draws raters from the global generator, as the package does."""
    pretend(monkeypatch, "onnxruntime")
    pretend(monkeypatch, "speechmos")
    pretend(
        monkeypatch,
        "speechmos.plcmos",
        run=lambda x, rate: {"plcmos": float(np.random.normal(size=3).sum()), "model": "v2"},
    )


def test_the_raters_are_the_same_for_every_clip_and_the_generator_is_left_alone(package):
    np.random.seed(3)
    wanted = np.random.normal()
    np.random.seed(3)
    values = [measured("plcmos", voice(0.1), voice(0.1))["plcmos"].value for _ in range(2)]
    assert np.random.normal() == wanted
    assert values[0] == values[1]
    assert values[0] == pytest.approx(np.random.RandomState(0).normal(size=3).sum())


def test_silence_is_counted(package):
    score = measured("plcmos", voice(0.1), 0 * voice(0.1))["plcmos"]
    assert score.reason == "no clip could be scored (1 x silent reconstruction)"
    assert score.detail["raters"] == "15, seed 0"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Conversion of an array")
def test_equals_the_package_called_directly():
    from speechmos import plcmos

    x = voice(2)
    np.random.seed(0)
    wanted = plcmos.run(x[0].numpy(), 16000)["plcmos"]
    assert measured("plcmos", x, x)["plcmos"].value == pytest.approx(wanted, abs=1e-6)
