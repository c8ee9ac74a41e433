import types

import pytest
import torch
from reference.sounds import assert_ranks, build, measured, pretend, voice

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.metrics import voicing


@pytest.fixture
def package(monkeypatch):
    """A stand-in whose frames of 512 samples are as periodic as their first sample is large."""

    def predict(x, rate, hop, low, high, model, *, return_periodicity, batch_size, pad):
        assert (rate, hop, low, high, pad) == (16000, 160, 50.0, 550.0, False)
        assert model == "tiny"
        return None, x[:, ::512].clone()

    def a_weighted(x, rate, hop, pad):
        return torch.where(x[:, 1::512] < 0, -80.0, -20.0)

    pretend(
        monkeypatch,
        "torchcrepe",
        predict=predict,
        loudness=types.SimpleNamespace(a_weighted=a_weighted),
    )
    voicing._periodicity.cache_clear()
    yield
    voicing._periodicity.cache_clear()


def frames(*values: float, quiet: int | None = None) -> torch.Tensor:
    x = torch.tensor(values).repeat_interleave(512)[None]
    x[:, 1::512] = 0.5
    if quiet is not None:
        x[:, 512 * quiet + 1] = -0.5
    return x


def test_golden_f1_and_rmse_by_hand(package):
    real, fake = frames(0.9, 0.9, 0.1, 0.3), frames(0.9, 0.2, 0.5, 0.3)
    scores = measured("voicing", real, fake)
    # voiced: TTFT and TFTT: two hits, one miss, one false alarm
    assert scores["vuv_f1"].value == pytest.approx(4 / 6)
    wanted = ((0.7**2 + 0.4**2) / 4) ** 0.5
    assert scores["periodicity_rmse"].value == pytest.approx(wanted, abs=1e-6)


def test_quiet_frames_are_unvoiced(package):
    real = frames(0.9, 0.9, 0.9, 0.9)
    scores = measured("voicing", real, frames(0.9, 0.9, 0.9, 0.9, quiet=3))
    assert scores["vuv_f1"].value == pytest.approx(6 / 7)


def test_a_clip_without_voice_is_counted(package):
    x = frames(0.1, 0.1, 0.1, 0.1)
    reason = "no clip could be scored (1 x no voiced frame)"
    assert measured("voicing", x, x)["vuv_f1"].reason == reason


def test_another_model_is_refused():
    with pytest.raises(ConfigError) as caught:
        build("voicing", model="large")
    assert str(caught.value) == "voicing model: there is no 'large'; choose one of full, tiny."


@pytest.mark.slow
def test_the_real_network_ranks_damage():
    assert_ranks("voicing", voice(2))
    clean = measured("voicing", voice(2), voice(2))
    assert (clean["vuv_f1"].value, clean["periodicity_rmse"].value) == (1, 0)
