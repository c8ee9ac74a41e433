import types

import numpy as np
import pytest
from reference.sounds import assert_ranks, hide, measured, pretend, voice

from tokenizers_vq.metrics import speaker_similarity


@pytest.fixture
def package(monkeypatch):
    """A stand-in whose embedding is the level in two bands."""
    for name in ("resemblyzer", "webrtcvad", "librosa"):
        pretend(monkeypatch, name)
    heard = []

    def embed(x):
        heard.append(len(x))
        bands = np.array([np.abs(x[::2]).sum(), np.abs(x[1::2]).sum()])
        return bands / np.linalg.norm(bands)

    preprocess = types.SimpleNamespace(preprocess_wav=lambda x: x[np.abs(x) > 0.01])
    encoder = types.SimpleNamespace(embed_utterance=embed)
    monkeypatch.setattr(speaker_similarity, "_encoder", lambda: (preprocess, encoder))
    speaker_similarity._embedding.cache_clear()
    yield heard
    speaker_similarity._embedding.cache_clear()


def test_cosine_of_known_embeddings(package):
    real, fake = voice(0.1).clone(), voice(0.1).clone()
    real[:], fake[:] = 0.5, 0.5
    fake[:, 1::2] = 0.25
    score = measured("speaker_similarity", real, fake)["speaker_similarity"]
    # (1, 1) and (1, 1/2)
    assert score.value == pytest.approx(1.5 / (2 * 1.25) ** 0.5, abs=1e-6)


def test_the_original_is_embedded_once(package):
    x = voice(0.2)
    for gain in (1.0, 0.5, 0.25):
        measured("speaker_similarity", x, gain * x)
    assert len(package) == 3


def test_a_clip_without_voice_is_counted(package):
    x = voice(0.1)
    score = measured("speaker_similarity", x, 0.005 * x / x.abs().max())["speaker_similarity"]
    assert score.reason == "no clip could be scored (1 x no voice found in the reconstruction)"


def test_a_missing_package_names_its_own_command(monkeypatch):
    for name in ("webrtcvad", "librosa"):
        pretend(monkeypatch, name)
    hide(monkeypatch, "resemblyzer")
    assert measured("speaker_similarity", voice(0.1), voice(0.1))["speaker_similarity"].reason == (
        "package Resemblyzer not found "
        "(pip install librosa webrtcvad-wheels; pip install --no-deps Resemblyzer)"
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_equals_the_package_called_directly_and_ranks_damage():
    from resemblyzer import VoiceEncoder, preprocess_wav

    x, y = voice(3), voice(3, seed=1)
    encoder = VoiceEncoder("cpu", verbose=False)
    a, b = (encoder.embed_utterance(preprocess_wav(one[0].numpy(), 16000)) for one in (x, y))
    score = measured("speaker_similarity", x, y)["speaker_similarity"]
    assert score.value == pytest.approx(float(a @ b), abs=1e-5)
    assert_ranks("speaker_similarity", x)
