"""Tokens and samples of a stream are those of the whole signal."""

import io
import itertools

import pytest
import torch

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.tokenizer import Tokenizer

SIZES = ([160], [1, 7, 400, 3], [0, 641, 0, 2], [37] * 30)


def codec(**conventions):
    torch.manual_seed(0)
    part = {"name": "seanet", "width": 4, "ratios": [8, 5, 4], "conventions": conventions}
    return Tokenizer.from_config(
        {
            "signal": {"kind": "audio", "channels": 1, "sample_rate": 16000},
            "dim": 8,
            "encoder": part,
            "decoder": part,
            "quantizer": {
                "name": "residual",
                "stages": {"repeat": 3, "of": {"name": "vq", "codebook_size": 32}},
            },
        }
    ).eval()


def pieces_of(x, sizes):
    """``x`` cut at these sizes, again and again; the last piece says so."""
    start = 0
    for size in itertools.cycle(sizes):
        yield x[..., start : start + size], start + size >= x.shape[-1]
        start += size
        if start >= x.shape[-1]:
            return


@pytest.mark.parametrize("conventions", [{}, {"pad": "reflect", "lstm": 1}], ids=["zeros", "lstm"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("length", [1, 160, 1000, 1441])
def test_a_stream_gives_what_the_whole_signal_gives(conventions, sizes, length):
    tokenizer = codec(**conventions)
    x = torch.rand(2, 1, length) - 0.5
    codes = tokenizer.encode(x)
    stream = tokenizer.stream()
    tokens = [stream.encode(piece, last=last) for piece, last in pieces_of(x, sizes)]
    assert torch.equal(torch.cat(tokens, dim=1), codes.indices)
    out = [stream.decode(part) for part in tokens]
    out.append(stream.decode(codes.indices[:, :0], last=True))
    expected = tokenizer.decode(codes.indices)  # whole positions
    got = torch.cat(out, dim=-1)
    torch.testing.assert_close(got, expected[..., : got.shape[-1]], rtol=1e-4, atol=1e-5)
    assert got.shape[-1] >= length


def test_the_end_is_cut_to_the_length_of_the_signal():
    tokenizer = codec()
    x = torch.rand(1, 1, 1000) - 0.5
    stream = tokenizer.stream()
    tokens = stream.encode(x, last=True)
    assert stream.decode(tokens, last=True).shape == x.shape
    other = tokenizer.stream()
    assert other.decode(tokens[:, :3]).shape[-1] == 480
    assert other.decode(tokens[:, 3:], last=True, num_samples=1000).shape[-1] == 520


def test_a_stream_goes_on_from_a_saved_state():
    tokenizer = codec(lstm=1)
    x = torch.rand(1, 1, 900) - 0.5
    stream = tokenizer.stream()
    first = stream.encode(x[..., :333])
    file = io.BytesIO()
    torch.save(stream.state.encoder, file)
    kept = stream.state
    rest = stream.encode(x[..., 333:], last=True)
    stream.state = kept
    assert torch.equal(stream.encode(x[..., 333:], last=True), rest)
    assert torch.equal(torch.cat([first, rest], dim=1), tokenizer.encode(x).indices)


def test_a_stream_that_has_ended_takes_nothing():
    stream = codec().stream()
    with pytest.raises(ShapeError, match=r"^stream: expected at least 1 sample; got none"):
        stream.encode(torch.zeros(1, 1, 0), last=True)
    tokens = stream.encode(torch.zeros(1, 1, 5), last=True)
    with pytest.raises(ShapeError, match=r"^stream: expected no samples after the last piece"):
        stream.encode(torch.zeros(1, 1, 5))
    stream.decode(tokens, last=True)
    with pytest.raises(ShapeError, match=r"^stream: expected no tokens after the last ones"):
        stream.decode(tokens)


def test_networks_that_see_the_future_are_refused_at_once(tiny_tokenizer):
    with pytest.raises(ConfigError, match=r"^stream: expected causal convolutions"):
        codec(causal=False).stream()
    with pytest.raises(ConfigError) as caught:
        tiny_tokenizer.stream()
    assert str(caught.value) == (
        "stream: expected a tokenizer that works in pieces; got one with CNN2dEncoder, "
        "CNN2dDecoder. Encode whole signals, or choose a causal backbone."
    )
