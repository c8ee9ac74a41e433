import io

import numpy as np
import pytest
import torch
from reference.sounds import voice

from tokenizers_vq.errors import ConfigError, MissingExtraError
from tokenizers_vq.evaluation import sound_codecs
from tokenizers_vq.metrics.si_sdr import si_sdr

SETTINGS = {"opus": 24, "vorbis": 1.0, "mp3": 0.9, "mulaw": 8}


@pytest.mark.parametrize("codec", sorted(sound_codecs.CODECS))
def test_a_clip_comes_back_at_its_length_and_in_its_place(codec):
    clip = voice(1.0, seed=2)[:, :15999]
    coded = sound_codecs.encode(clip, 16000, codec, SETTINGS[codec])
    assert coded.clip.shape == clip.shape
    assert coded.clip.abs().max() <= 1
    a, b = clip[0, 500:-500], coded.clip[0]
    fits = [float(a @ b[500 + lag : 500 + lag + len(a)]) for lag in range(-400, 401)]
    assert abs(int(np.argmax(fits)) - 400) <= 1
    assert coded.payload_bytes <= coded.n_bytes < clip.shape[1] * 2


def test_more_bits_sound_better():
    clip = voice(1.0, seed=2)
    coded = [sound_codecs.encode(clip, 16000, "opus", kbps) for kbps in (6, 12, 24)]
    sizes = [one.n_bytes for one in coded]
    assert sizes == sorted(sizes)
    quality = [float(si_sdr(clip, one.clip)) for one in coded]
    assert quality == sorted(quality)


def test_opus_counts_its_pages_and_its_packets():
    payload, file = sound_codecs._ogg_opus(np.zeros(16000, np.int16), 16000, 12)
    assert file[:4] == b"OggS"
    # the two header pages: 27 + 1 + 19 bytes of OpusHead, then OpusTags
    assert file[28:36] == b"OpusHead"
    coded = sound_codecs.encode(torch.zeros(1, 16000), 16000, "opus", 12)
    assert (coded.payload_bytes, coded.n_bytes) == (payload, len(file))
    assert len(file) - payload > 100


def test_mulaw_is_a_byte_per_sample_and_the_header_of_its_file():
    coded = sound_codecs.encode(voice(1.0), 16000, "mulaw", 8)
    assert (coded.n_bytes, coded.payload_bytes) == (8024, 8000)


def test_mulaw_is_that_of_the_standard():
    # G.711: 33 x 2^segment steps; an input of exactly 0 and of full scale
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0.0, 0.99]), 8000, format="AU", subtype="ULAW")
    assert buffer.getvalue()[24:] == bytes([0xFF, 0x80])


def test_what_cannot_be_coded_is_said(monkeypatch):
    clip = voice(0.1)
    for codec, setting, text in (
        ("aac", 1, "sound codec: there is no 'aac'; choose one of mp3, mulaw, opus, vorbis."),
        ("mulaw", 4, "sound codec mulaw: expected 8 bits; got 4. G.711 has no other."),
        ("mp3", 2, "sound codec: expected a compression level of 0 to 1; got 2."),
    ):
        with pytest.raises(ConfigError) as caught:
            sound_codecs.encode(clip, 16000, codec, setting)
        assert str(caught.value) == text
    monkeypatch.setattr(sound_codecs, "find_spec", lambda module: None)
    with pytest.raises(MissingExtraError) as missing:
        sound_codecs.encode(clip, 16000, "opus", 6)
    assert str(missing.value) == (
        'sound codec opus: package av not found (pip install "tokenizers_vq[speech]").'
    )


def test_labels():
    labels = [sound_codecs.label(codec, SETTINGS[codec]) for codec in sound_codecs.CODECS]
    assert labels == ["Opus 24 kb/s", "Vorbis level 1", "MP3 level 0.9", "mu-law 8 bit, 8 kHz"]
