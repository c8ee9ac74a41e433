import pytest
from reference.sounds import assert_ranks, build, measured, noisy, voice

from tokenizers_vq.errors import ConfigError


def test_equals_the_package_called_directly():
    from pesq import pesq

    x, y = voice(), noisy(voice(), 15)
    scores = measured("pesq", x, y)
    for name in ("pesq_wb", "pesq_nb"):
        wanted = pesq(16000, x[0].numpy(), y[0].numpy(), name[-2:])
        assert scores[name].value == pytest.approx(wanted, abs=1e-6)
    assert scores["pesq_wb"].value != scores["pesq_nb"].value


def test_ranks_damage():
    assert_ranks("pesq", voice())


def test_silence_and_short_clips_are_counted():
    x = voice()
    metric = build("pesq", resamples=0)
    for real, fake in ((x, x), (0 * x, x), (x, 0 * x), (x[:, :999], x[:, :999])):
        metric.update(real[None], fake[None])
    score = metric.compute()["pesq_wb"]
    assert score.n == 1
    assert score.detail["unscored"] == {
        "silent original": 1,
        "silent reconstruction": 1,
        "shorter than 4,000 samples": 1,
    }


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("NoUtterancesError", "PESQ found no utterance"),
        ("OutOfMemoryError", "PESQ failed (OutOfMemoryError)"),
    ],
)
def test_what_the_package_refuses_is_counted(monkeypatch, error, reason):
    import pesq

    def refuse(*_):
        raise getattr(pesq, error)(b"No utterances detected")

    monkeypatch.setattr(pesq, "pesq", refuse)
    score = measured("pesq", voice(0.5), voice(0.5))["pesq_nb"]
    assert score.reason == f"no clip could be scored (1 x {reason})"


def test_other_rates_are_resampled():
    scores = measured("pesq", voice(rate=24000), voice(rate=24000), sample_rate=24000)
    assert scores["pesq_wb"].value == pytest.approx(4.644, abs=1e-3)
    assert scores["pesq_wb"].detail["sample_rate"] == 16000


def test_another_name_is_refused():
    with pytest.raises(ConfigError) as caught:
        build("pesq", names=["wb"])
    assert str(caught.value) == "pesq: there is no 'wb'; choose one of pesq_nb, pesq_wb."
