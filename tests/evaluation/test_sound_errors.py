"""What is wrong with a sound, its codes or a stream is one sentence, and nothing is lost."""

import pytest
import torch

from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ShapeError
from tokenizers_vq.tokenizer import Tokenizer

AXES = "Signals are tensors, channels first, with a batch axis (x[None] adds one)."


@pytest.fixture(scope="module")
def tok():
    torch.manual_seed(0)
    stages = {"repeat": 4, "of": {"name": "vq", "codebook_size": 16}}
    config = {**read_config("backbone", "tiny_spectrum")}
    config["quantizer"] = {"name": "residual", "code_dim": 8, "stages": stages}
    return Tokenizer.from_config(config).eval()


def ended(tok):
    stream = tok.stream()
    stream.encode(torch.zeros(1, 1, 300), last=True)
    return stream


CASES = {
    "rate": (
        lambda tok: tok.encode(torch.zeros(1, 1, 300), sample_rate=44100),
        "encode: expected 16000 samples per second; got 44100. Resample, or read files with "
        "data.sound.read_sound.",
    ),
    "channels": (
        lambda tok: tok.encode(torch.zeros(1, 2, 300)),
        f"encode: expected shape (B, 1, T); got (1, 2, 300). {AXES}",
    ),
    "empty": (
        lambda tok: tok.encode(torch.zeros(1, 1, 0)),
        "encode: expected at least 1 sample per axis; got (1, 1, 0).",
    ),
    "not finite": (
        lambda tok: tok.encode(torch.full((1, 1, 300), torch.nan)),
        "encode: expected values in [-1, 1]; got nan to nan. Rescale, or pass uint8 for 0..255.",
    ),
    "too loud": (
        lambda tok: tok.encode(torch.full((1, 1, 300), 3.0)),
        "encode: expected values in [-1, 1]; got 3 to 3. Rescale, or pass uint8 for 0..255.",
    ),
    "depth": (
        lambda tok: tok.encode(torch.zeros(1, 1, 300), num_codebooks=5),
        "encode: expected num_codebooks of 1..4 and a residual quantizer; got 5 for Residual.",
    ),
    "depth of a stream": (
        lambda tok: tok.stream(num_codebooks=0),
        "encode: expected num_codebooks of 1..4 and a residual quantizer; got 0 for Residual.",
    ),
    "depth of codes": (
        lambda tok: tok.decode(torch.zeros(1, 2, 4, dtype=torch.int64), num_codebooks=5),
        "decode: expected num_codebooks of 1..4 and a residual or multi-scale quantizer; got 5 for "
        "Residual.",
    ),
    "codes": (
        lambda tok: tok.decode(torch.full((1, 2, 4), 16)),
        "decode: index 16 in codebook 0 is outside 0..15.",
    ),
    "codes of a stream": (
        lambda tok: tok.stream().decode(torch.full((1, 2, 4), 16)),
        "stream: index 16 in codebook 0 is outside 0..15.",
    ),
    "ended": (
        lambda tok: ended(tok).encode(torch.zeros(1, 1, 300)),
        "stream: expected no samples after the last piece; got (1, 1, 300). Begin another stream.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_one_sentence(name, tok):
    call, message = CASES[name]
    with pytest.raises(ShapeError) as error:
        call(tok)
    assert str(error.value) == message


def test_a_refused_piece_changes_nothing(tok):
    x = torch.rand(1, 1, 700) - 0.5
    stream = tok.stream()
    first = stream.encode(x[..., :400])
    with pytest.raises(ShapeError):
        stream.encode(torch.full((1, 1, 5), torch.inf))
    rest = stream.encode(x[..., 400:], last=True)
    assert torch.equal(torch.cat([first, rest], 1), tok.encode(x, sample_rate=16000).indices)
