"""Batches of several lengths, exact lengths, some codebooks, segments, and long signals."""

from dataclasses import replace

import pytest
import torch
from reference import seanet

from tokenizers_vq.bitstream import from_bytes, to_bytes
from tokenizers_vq.chunking import chunked_decode, chunked_encode
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.segments import Segments, Windows
from tokenizers_vq.published import from_published
from tokenizers_vq.tokenizer import Tokenizer


def codec(segments=None, levels=3, **conventions):
    torch.manual_seed(0)
    part = {"name": "seanet", "width": 4, "ratios": [4, 2], "conventions": conventions}
    stage = {"name": "vq", "codebook_size": 16}
    return Tokenizer.from_config(
        {
            "signal": {"kind": "audio", "channels": 1, "sample_rate": 16000},
            "dim": 4,
            "encoder": part if segments is None else {**part, "segments": segments},
            "decoder": part,
            "quantizer": {"name": "residual", "stages": {"repeat": levels, "of": stage}},
        }
    ).eval()


def first_line(error):
    return str(error.value).splitlines()[0]


SEGMENTS = {"length": 48, "overlap": 5, "loudness": True}
WAYS = [
    (None, {}),
    (None, {"causal": False, "pad": "reflect", "lstm": 1, "bidirectional": True}),
    (SEGMENTS, {"causal": False, "norm": "group"}),
]


@pytest.mark.parametrize(("segments", "ways"), WAYS, ids=["causal", "whole", "segments"])
def test_padding_in_a_batch_never_changes_an_item(segments, ways):
    tok = codec(segments, **ways)
    lengths = (1, 100, 37, 100, 48, 49)
    x = torch.rand(6, 1, 120) - 0.5
    codes = tok.encode(x, lengths=lengths)
    x_hat = tok.decode(codes)
    assert x_hat.shape == x.shape
    assert codes.lengths == lengths
    for item, n in enumerate(lengths):
        alone = tok.encode(x[item : item + 1, :, :n])
        count = alone.indices.shape[1]
        assert torch.equal(codes.indices[item, :count], alone.indices[0])
        assert (codes.indices[item, count:] == -1).all()
        torch.testing.assert_close(x_hat[item, :, :n], tok.decode(alone)[0], rtol=0, atol=1e-6)
        assert not x_hat[item, :, n:].any()
    other = x.clone()
    other[0, :, 1:] = 0.5  # what is behind an end
    assert torch.equal(tok.encode(other, lengths=lengths).indices, codes.indices)
    first = tok.encode(x, lengths=lengths, num_codebooks=2)
    assert torch.equal(first.indices, codes.indices[..., :2])
    torch.testing.assert_close(tok.decode(first), tok.decode(codes, num_codebooks=2))
    again = tok.decode(from_bytes(to_bytes(codes)))
    assert torch.equal(again, x_hat)


@pytest.mark.parametrize("lengths", [(3,), (0, 3), (3, 11)])
def test_lengths_that_cannot_be(lengths):
    with pytest.raises(ShapeError) as error:
        codec().encode(torch.zeros(2, 1, 10), lengths=lengths)
    assert first_line(error) == (
        f"encode: expected one length from 1 to T per item; got {lengths} for a signal of "
        "(2, 1, 10). Count the samples of each item."
    )


def test_codebooks_that_cannot_be():
    with pytest.raises(ShapeError) as error:
        codec().encode(torch.zeros(1, 1, 10), num_codebooks=4)
    assert first_line(error) == (
        "encode: expected num_codebooks of 1..3 and a residual quantizer; got 4 for Residual."
    )


def test_codes_of_other_codebooks_are_not_a_prefix():
    tok = codec()
    codes = tok.encode(torch.zeros(1, 1, 10), num_codebooks=2)
    with pytest.raises(ShapeError):
        tok.decode(replace(codes, codebook_sizes=(16, 8)))


def test_segments_cover_the_signal():
    assert Segments().spans(9) == [(0, 9)]
    assert Segments(4, 1).spans(9) == [(0, 4), (3, 7), (6, 9)]
    assert Segments(4, 1).spans(4) == [(0, 4), (3, 4)]
    with pytest.raises(ConfigError) as error:
        Segments(4, 4)
    assert first_line(error) == (
        "Segments: expected an overlap from 0 to below the length 4; got 4. Correct the backbone "
        "config."
    )


def test_windows_give_every_sample_once():
    one_sided, both = Windows(6, 4), Windows(6, 4, 1)
    assert one_sided.spans(5) == [(0, 5, 0, 4), (4, 5, 4, 5)]
    assert one_sided.spans(4) == [(0, 4, 0, 4)]
    assert both.spans(6) == [(0, 6, 0, 6)]
    assert both.spans(7) == [(0, 6, 0, 5), (4, 7, 5, 7)]
    for windows in (one_sided, both, Windows(3, 3), Windows(9, 2, 4)):
        for samples in range(1, 40):
            spans = windows.spans(samples)
            assert [n for span in spans for n in range(span.first, span.last)] == [*range(samples)]
            assert all(s.start <= s.first < s.last <= s.end <= s.start + windows.length
                       for s in spans)  # fmt: skip
    with pytest.raises(ConfigError) as error:
        Windows(4, 3, 2)
    assert first_line(error) == (
        "Windows: expected a step from 1 to length - before; got length 4, step 3, before 2. "
        "Correct the backbone config."
    )


def test_loudness_goes_through_training():
    tok = codec({"loudness": True}, causal=False)
    x = torch.rand(2, 1, 40) - 0.5
    quiet = tok(x * 0.01).x_hat
    torch.testing.assert_close(quiet, tok(x).x_hat * 0.01, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("chunk", [64, 100, 1000])
@pytest.mark.parametrize("ways", [{"pad": "reflect", "lstm": 1}, {"causal": False}], ids=str)
def test_chunks_give_what_the_whole_signal_gives(ways, chunk):
    tok = codec(**ways)
    x = torch.rand(1, 1, 700) - 0.5
    codes = tok.encode(x)
    found = chunked_encode(tok, x, chunk, 160)
    assert torch.equal(found.indices, codes.indices)
    assert found.shape == codes.shape
    for raw in (False, True):
        x_hat = chunked_decode(tok, codes, chunk, 160, raw=raw)
        torch.testing.assert_close(x_hat, tok.decode(codes, raw=raw), rtol=0, atol=1e-5)


def test_chunks_need_audio_and_a_size():
    with pytest.raises(ConfigError) as error:
        chunked_encode(codec(), torch.zeros(1, 1, 9), 0)
    assert first_line(error) == (
        "chunked_encode: expected chunks of at least 1 sample and 0 or more around them; got 0 and "
        "32768. Choose others."
    )


@torch.no_grad()
def test_a_stream_of_imported_encodec_waits_for_its_reflection():
    tok = from_published("encodec", seanet.published(ratios=(8, 5, 4, 2)))
    stream = tok.stream()
    assert stream.latency == 7 * 320
    x = torch.rand(1, 1, 7000) - 0.5
    codes = tok.encode(x)
    counts, tokens, out = [], [], []
    for start in range(0, 7000, 320):
        tokens.append(stream.encode(x[..., start : start + 320], last=start + 320 >= 7000))
        counts.append(tokens[-1].shape[1])
        out.append(stream.decode(tokens[-1], last=start + 320 >= 7000))
    assert counts == [0] * 6 + [7] + [1] * 15
    assert torch.equal(torch.cat(tokens, 1), codes.indices)
    torch.testing.assert_close(torch.cat(out, -1), tok.decode(codes), rtol=1e-4, atol=1e-5)


def test_a_stream_with_zeros_in_front_waits_for_one_position():
    assert codec().stream().latency == 8


@pytest.mark.parametrize(("segments", "ways"), WAYS, ids=["causal", "whole", "segments"])
def test_every_length_comes_back(segments, ways):
    tok = codec(segments, levels=1, **ways)
    for length in [*range(1, 3 * 8 + 8), 1000, 1001, 4099]:
        x = torch.rand(1, 1, length) - 0.5
        assert tok.decode(tok.encode(x)).shape == x.shape
