import dataclasses

import pytest
import torch
from reference.sounds import voice

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation.protocol import load_protocol
from tokenizers_vq.evaluation.sound_protocol import ANCHORS, SoundProtocol, pcm16
from tokenizers_vq.metrics.si_sdr import si_sdr


@pytest.mark.parametrize("name", ["speech_16k", "speech_fast"])
def test_the_protocols_build_their_metrics(name):
    protocol = load_protocol(name)
    assert isinstance(protocol, SoundProtocol)
    assert protocol.id == f"{name}@{protocol.hash}"
    for config in protocol.metrics:
        assert registry.build("metric", config, sample_rate=16000, weights={}).compute()


def test_the_hash_differs_with_anything_that_changes_a_number():
    plain = SoundProtocol("p")
    for change in ({"seconds": 2.0}, {"level": -20.0}, {"seed": 1}, {"depths": [1]}):
        assert dataclasses.replace(plain, **change).hash != plain.hash
    assert load_protocol({"name": "p", "signal": "audio"}).hash == plain.hash


def test_clips_are_averaged_cut_levelled_and_rounded():
    stereo = torch.stack([voice()[0], 0 * voice()[0]])
    clip = SoundProtocol("p", seconds=0.5, level=-30.0).prepare(stereo)
    assert clip.shape == (1, 8000)
    assert 10 * float(clip.square().mean().log10()) == pytest.approx(-30, abs=0.01)
    assert torch.equal((clip * 32767).round() / 32767, clip)
    loud = SoundProtocol("p", level=0.0).prepare(stereo)
    assert float(loud.abs().max()) == 1  # as far as the peak allows
    assert torch.equal(SoundProtocol("p").prepare(voice()), pcm16(voice()))
    assert not SoundProtocol("p", level=-20.0).prepare(torch.zeros(1, 100)).any()


def test_anchors_do_what_they_say():
    clip = voice()
    assert torch.equal(ANCHORS["identity"](clip, 16000, 0), clip)
    noisy = ANCHORS["noise_20db"](clip, 16000, 0)
    assert float(si_sdr(clip, noisy)) == pytest.approx(20, abs=0.1)
    assert len(ANCHORS["four_bit"](clip, 16000, 0).unique()) <= 16
    low = ANCHORS["low_pass_2k"](clip, 16000, 0)
    spectrum = torch.fft.rfft(low[0]).abs().square()
    assert spectrum[4400:].sum() < 1e-4 * spectrum.sum()  # bins of half a hertz
    assert low.shape == clip.shape


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"anchors": ["jpeg"]},
            "anchor: there is no 'jpeg'; choose one of four_bit, identity, low",
        ),
        ({"codecs": {"aac": [1]}}, "sound codec: there is no 'aac'; choose one of mp3, mulaw"),
        ({"limit": 0}, "protocol 'p': expected limit of at least 1; got 0. Correct it, or leave"),
        ({"depths": [1, 0]}, "protocol 'p': expected depths[1] of at least 1; got 0. Correct it"),
    ],
)
def test_what_does_not_exist_is_refused(options, text):
    with pytest.raises(ConfigError) as caught:
        SoundProtocol("p", **options)
    assert str(caught.value).startswith(text)


def test_an_unknown_option_is_refused():
    with pytest.raises(ConfigError) as caught:
        load_protocol({"name": "p", "signal": "audio", "size": 256})
    assert str(caught.value).startswith("protocol 'p' has no option 'size'; it takes anchors, ")
