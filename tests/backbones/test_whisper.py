"""The encoder of Whisper's shape against transformers, and its windows, lengths and messages."""

import numpy as np
import pytest
import torch
from reference import whisper as formulas
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder as Theirs

from tokenizers_vq.backbones.whisper import WhisperEncoder
from tokenizers_vq.backbones.whisper_layers import SpeechAttention, SpeechStack, sinusoids
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.published.keys import Rule, rename
from tokenizers_vq.published.whisper_keys import TRANSFORMERS, layer_rules
from tokenizers_vq.types import SignalSpec

SIGNAL = SignalSpec("audio", 1, sample_rate=16000)


def encoder(**options):
    options = {"width": 16, "heads": 2, "layers": 2, "mels": 20} | options
    return WhisperEncoder(options.pop("dim", options["width"]), SIGNAL, **options).eval()


@torch.no_grad()
def test_it_is_the_encoder_of_transformers():
    config = WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24,
        num_mel_bins=20, max_source_positions=40,
    )  # fmt: skip
    theirs = Theirs(config).eval()
    ours = encoder(hidden=24, conventions={"positions": 40})
    keys = [
        Rule(r"(conv[12]\..*)", r"\1"),
        Rule(r"embed_positions\.weight", "stack.positions"),
        *layer_rules(TRANSFORMERS, r"layers\.", "stack.layers."),
        Rule(r"layer_norm\.(.*)", r"stack.norm.\1"),
    ]
    ours.load_state_dict(rename(theirs.state_dict(), keys, "test"))
    x = torch.rand(2, 1, 80 * 160) - 0.5
    listen = WhisperFeatureExtractor(feature_size=20, chunk_length=1, n_samples=80 * 160)
    spectra = listen(list(x[:, 0].numpy()), sampling_rate=16000, return_tensors="pt")
    expected = theirs(spectra["input_features"][..., :80]).last_hidden_state
    torch.testing.assert_close(ours(x), expected, rtol=1e-3, atol=1e-4)


def test_positions_are_sines_of_slower_and_slower_waves():
    table = sinusoids(50, 8)
    for place in (0, 1, 49):
        angles = place / 10000 ** (np.arange(4) / 3)
        wanted = np.concatenate([np.sin(angles), np.cos(angles)])
        np.testing.assert_allclose(table[place].numpy(), wanted, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("memory", [0, 3])
def test_attention_does_what_the_formulas_do(memory):
    stack = SpeechStack(12, 2, 16, 1, positions=None, memory=memory, norm=False).eval()
    state = {}
    names = {"attn.proj": "proj", "mlp.up": "up", "mlp.down": "down"}
    names |= {f"attn.{part}": part for part in "qkv"} | {"norm1": "norm1", "norm2": "norm2"}
    for key, value in stack.layers[0].state_dict().items():
        module, _, kind = key.rpartition(".")
        name = formulas.OPENAI.get(names.get(module), "attn.fsmn_block")
        state[f"layer.{name}.{kind}"] = value
    x = torch.randn(2, 9, 12)
    seen = torch.rand(9, 9) < 0.5
    seen |= torch.eye(9, dtype=torch.bool)
    expected = formulas.layer(state, "layer", formulas.OPENAI, x, heads=2, seen=seen, rotary=True)
    torch.testing.assert_close(stack(x, seen), expected, rtol=1e-4, atol=1e-5)


def test_signals_are_whole_positions_or_whole_frames():
    whole, frames = encoder(), encoder(conventions={"whole": False})
    assert [whole.grid((n,)) for n in (1, 320, 321, 640)] == [(1,), (1,), (2,), (2,)]
    assert [frames.grid((n,)) for n in (1, 479, 480, 799)] == [(1,), (1,), (2,), (2,)]
    with pytest.raises(ShapeError):
        frames.grid((0,))


@torch.no_grad()
def test_without_windows_it_has_as_many_positions_as_its_table():
    network = encoder(conventions={"positions": 5}, layers=1)
    x = torch.rand(1, 1, 3000) - 0.5
    parts = [network(part) for part in x.split(1600, dim=-1)]
    torch.testing.assert_close(network(x), torch.cat(parts, dim=1), rtol=0, atol=1e-6)
    assert network.grid((3000,)) == (10,)
    assert encoder(conventions={"positions": None}).windows is None


@torch.no_grad()
def test_silence_is_silence():
    z = encoder(conventions={"unit": True})(torch.zeros(2, 1, 700))
    assert z.isfinite().all()
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(2, 3))


MESSAGES = {
    "whisper: expected windows of whole positions, 320 samples each; got Windows(length=700, "
    "step=320, before=0). Correct the backbone config.": {
        "windows": {"length": 700, "step": 320}
    },
    "whisper: expected windows of at most 2 positions in front of the pooling; got Windows("
    "length=960, step=320, before=0). Correct the backbone config.": {
        "windows": {"length": 960, "step": 320}, "conventions": {"positions": 2}
    },
    "whisper: expected two strides and a pool of at least 1; got (1, 2) and 0. Correct the "
    "backbone config.": {"conventions": {"pool": 0}},
    "whisper: expected pool_after of 0 to 2 layers; got 3. Correct the backbone config.": {
        "conventions": {"pool_after": 3}
    },
    "whisper: expected a block of whole 4 positions; got 6. Correct the backbone config.": {
        "conventions": {"pool": 4, "block": 6}
    },
    "whisper: expected neither pool nor causal where whole is off. Correct the backbone config.": {
        "conventions": {"whole": False, "causal": True}
    },
    "SpeechAttention: expected heads that divide the width; got 3 heads and width 16. Correct the "
    "backbone config.": {"heads": 3},
    "sinusoids: expected an even width of at least 4; got 15. Correct the backbone config.": {
        "width": 15, "heads": 3
    },
}  # fmt: skip


@pytest.mark.parametrize("expected", MESSAGES)
def test_what_cannot_be_is_said(expected):
    with pytest.raises(ConfigError) as error:
        encoder(**MESSAGES[expected])
    assert str(error.value) == expected


def test_more_that_cannot_be():
    with pytest.raises(ConfigError) as error:
        SpeechAttention(4, 2, memory=2)
    assert str(error.value) == (
        "SpeechAttention: expected a memory of 0 or an odd number of positions; got 2. Correct the "
        "backbone config."
    )
    with pytest.raises(ConfigError) as error:
        WhisperEncoder(4, SignalSpec("audio", 1, sample_rate=24000))
    assert str(error.value) == (
        "whisper: expected a signal of 1 channel and 16000 Hz; got 1 and 24000. Resample it."
    )
    with pytest.raises(ConfigError, match="Did you mean 'pool'"):
        encoder(conventions={"pol": 4})
