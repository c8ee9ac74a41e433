"""The encoder of spectra: what it sees, how far it looks, and that pieces equal the whole."""

import math

import numpy as np
import pytest
import torch

from tokenizers_vq.backbones.spectrum import SpectrumEncoder
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import SignalSpec

AUDIO = SignalSpec("audio", 1, sample_rate=16000)


def shaken(module):
    """Weights larger than training starts, so that all of it matters."""
    torch.manual_seed(0)
    for p in module.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return module.eval()


def codec(n_fft):
    config = read_config("backbone", "tiny_spectrum")
    for side in ("encoder", "decoder"):
        config[side] = {**config[side], "stride": 16, "n_fft": n_fft}
    stages = {"repeat": 3, "of": {"name": "vq", "codebook_size": 16}}
    config["quantizer"] = {"name": "residual", "code_dim": 8, "stages": stages}
    return shaken(Tokenizer.from_config(config))


def test_what_the_first_layer_sees():
    encoder = SpectrumEncoder(4, AUDIO, 8, 16, 16, 1, 16)
    seen = []
    encoder.embed.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    x = torch.randn(1, 1, 20)
    assert encoder(x).shape == (1, 3, 4)
    window = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(16) / 16)
    padded = np.concatenate([np.zeros(4), x[0, 0].numpy(), np.zeros(8)])
    for t in range(3):
        z = np.fft.fft(padded[8 * t : 8 * t + 16] * window)[:9] / math.sqrt((window**2).sum())
        size = np.abs(z) + 1e-4
        turned = z / size**0.7
        pairs = np.stack([turned.real, turned.imag], axis=1).reshape(-1)
        expected = np.concatenate([np.log(size) / 4, pairs])
        np.testing.assert_allclose(seen[0][0, t].numpy(), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("n_fft", [32, 48, 64])
def test_a_latent_sees_its_samples_the_past_and_no_further_than_it_says(n_fft):
    encoder = shaken(SpectrumEncoder(4, AUDIO, 16, 16, 16, 1, n_fft))
    ahead = encoder.lookahead_samples
    assert ahead == (n_fft - 16) // 2
    x = torch.randn(1, 1, 320)
    z = encoder(x)
    moved = x.clone()
    moved[..., 16 * 5 + ahead :] += 1
    after = encoder(moved)
    torch.testing.assert_close(after[:, :5], z[:, :5])
    assert (after[:, 5] - z[:, 5]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("n_fft", [32, 64])
@pytest.mark.parametrize("length", [1, 16, 17, 333])
@pytest.mark.parametrize("size", [1, 16, 100, 400])
def test_a_codec_in_pieces(n_fft, length, size):
    tok = codec(n_fft)
    x = torch.rand(2, 1, length) * 2 - 1
    codes = tok.encode(x, num_codebooks=2)
    stream = tok.stream(num_codebooks=2)
    tokens, sounds = [], []
    for start in range(0, length, size):
        last = start + size >= length
        tokens.append(stream.encode(x[..., start : start + size], last=last))
        sounds.append(stream.decode(tokens[-1], last=last))
    assert torch.equal(torch.cat(tokens, 1), codes.indices)
    torch.testing.assert_close(torch.cat(sounds, -1), tok.decode(codes), rtol=1e-4, atol=1e-5)


def test_the_first_sample_waits_for_both_windows():
    # one position, and half of what the windows overlap on either side, in whole positions
    assert codec(32).stream().latency == 32
    assert codec(64).stream().latency == 64


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (
            {"n_fft": 20},
            "an n_fft of at least 2 x 16, the stride, and as odd or even as it; got 20",
        ),
        (
            {"n_fft": 33},
            "an n_fft of at least 2 x 16, the stride, and as odd or even as it; got 33",
        ),
        ({"depth": 0}, "at least 1 block; got 0"),
        (
            {"signal": SignalSpec("audio", 2, sample_rate=16000)},
            "a signal of 1 channel; got 2",
        ),
    ],
)
def test_options_that_cannot_be_are_named(options, what):
    with pytest.raises(ConfigError) as error:
        SpectrumEncoder(**{"dim": 4, "signal": AUDIO, "stride": 16, **options})
    assert str(error.value) == f"spectrum: expected {what}. Correct the backbone config."
