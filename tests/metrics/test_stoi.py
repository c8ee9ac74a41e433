import pytest
import torch
from reference.sounds import assert_ranks, build, measured, noisy, voice

from tokenizers_vq.errors import ConfigError


def test_equals_the_package_called_directly():
    from pystoi import stoi

    x, y = voice(), noisy(voice(), 10)
    scores = measured("stoi", x, y)
    for name in ("stoi", "estoi"):
        wanted = stoi(x[0].numpy(), y[0].numpy(), 16000, extended=name == "estoi")
        assert scores[name].value == pytest.approx(wanted, abs=1e-5)


def test_ranks_damage():
    assert_ranks("stoi", voice())


def test_a_clip_with_too_little_speech_is_counted():
    x = voice(0.3)
    score = measured("stoi", x, x)["stoi"]
    assert score.reason == "no clip could be scored (1 x less than 384 ms of speech)"
    silent = measured("stoi", torch.zeros(1, 16000), torch.zeros(1, 16000))["stoi"]
    assert silent.reason == "no clip could be scored (1 x silent original)"


def test_another_name_is_refused():
    with pytest.raises(ConfigError) as caught:
        build("stoi", names=["extended"])
    assert str(caught.value) == "stoi: there is no 'extended'; choose one of estoi, stoi."
