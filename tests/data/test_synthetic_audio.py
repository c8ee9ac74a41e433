import pytest
import torch

from tokenizers_vq.data.synthetic_audio import SyntheticAudio
from tokenizers_vq.errors import ConfigError


def test_sounds_are_deterministic_different_and_in_range():
    sounds = SyntheticAudio(n=4, seconds=0.5, seed=1)
    again = SyntheticAudio(n=4, seconds=0.5, seed=1)
    items = list(sounds)
    assert all(x.shape == (1, 8000) and x.dtype == torch.float32 for x in items)
    assert all(0.29 < x.abs().max() < 0.91 for x in items)
    assert all(torch.equal(x, again[5, i]) for i, x in enumerate(items))
    assert len({x.numpy().tobytes() for x in items}) == 4
    assert sounds.sha256() == again.sha256() != SyntheticAudio(n=4, seconds=0.5).sha256()
    assert (sounds.signal.kind, sounds.signal.sample_rate) == ("audio", 16000)


def test_sounds_have_loud_and_quiet_parts_and_more_low_than_high_tones():
    x = torch.cat(list(SyntheticAudio(n=8, seconds=1.0)), dim=1)[0]
    levels = x.unfold(0, 400, 400).square().mean(1)
    assert levels.quantile(0.9) > 20 * levels.quantile(0.05)
    energy = torch.fft.rfft(x).abs().square()
    assert energy[: len(energy) // 4].sum() > 3 * energy[len(energy) // 4 :].sum()


def test_further_channels_hold_the_voice_of_the_first_one_fainter():
    mono, stereo = (SyntheticAudio(n=3, seconds=0.1, channels=c) for c in (1, 2))
    assert stereo.signal.channels == 2
    gains = [float((x[0] @ x[1]) / (x[0] @ x[0])) for x in stereo]
    assert all(torch.equal(x[:1], y) for x, y in zip(stereo, mono, strict=True))
    assert all(torch.allclose(x[1], g * x[0]) for x, g in zip(stereo, gains, strict=True))
    assert len(set(gains)) == 3
    assert all(0.25 <= g <= 1 for g in gains)


@pytest.mark.parametrize("seconds", [1 / 16000, 0.01])
def test_any_length(seconds):
    items = list(SyntheticAudio(n=3, seconds=seconds))
    assert all(x.isfinite().all() and x.shape == (1, round(16000 * seconds)) for x in items)


def test_an_empty_set_is_an_error():
    with pytest.raises(ConfigError) as error:
        SyntheticAudio(n=0)
    assert str(error.value) == (
        "SyntheticAudio: expected n and channels of 1 or more and at least one sample; got "
        "n=0, channels=1, seconds=1.0, sample_rate=16000."
    )
