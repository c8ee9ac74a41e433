"""Mimi: how many weights it has, and streams of it."""

import pytest
import torch

from tokenizers_vq.configs import read_config
from tokenizers_vq.tokenizer import Tokenizer

LEVEL = {"name": "vq", "codebook_size": 32}
HEAD = {
    "name": "split_residual",
    "code_dim": 8,
    "groups": [LEVEL, {"name": "residual", "stages": {"repeat": 3, "of": LEVEL}}],
}


def tiny(**options):
    torch.manual_seed(0)
    config = read_config("backbone", "tiny_mimi")
    config["encoder"] = {**config["encoder"], **options}
    return Tokenizer.from_config({**config, "quantizer": HEAD}).eval()


def test_the_paper_size_has_as_many_weights_as_the_published_one():
    config = read_config("backbone", "mimi_24k")
    head = {**HEAD, "code_dim": 512}
    with torch.device("meta"):
        tokenizer = Tokenizer.from_config({**config, "quantizer": head})
    # without weight normalisation, whose gains the published file does not have
    gains = sum(v.numel() for k, v in tokenizer.named_parameters() if k.endswith("original0"))
    counts = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in (("encoder", tokenizer.encoder), ("decoder", tokenizer.decoder))
    }
    maps = 2 * 512 * 512
    assert round((sum(counts.values()) - gains + maps) / 1e6, 2) == 79.31


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("sizes", [[320], [640, 1, 959], [3000]], ids=str)
@torch.no_grad()
def test_a_stream_is_the_whole_signal_though_the_window_is_full(sizes, whole):
    tokenizer = tiny(whole=whole)
    x = torch.rand(2, 1, 5000) - 0.5
    whole = tokenizer.encode(x)
    stream, at, tokens = tokenizer.stream(), 0, []
    while at < x.shape[-1]:
        size = sizes[len(tokens) % len(sizes)]
        tokens.append(stream.encode(x[..., at : at + size], last=at + size >= x.shape[-1]))
        at += size
    assert torch.equal(torch.cat(tokens, dim=1), whole.indices)
    out = [stream.decode(part, last=i == len(tokens) - 1) for i, part in enumerate(tokens)]
    got = torch.cat(out, dim=-1)
    torch.testing.assert_close(got, tokenizer.decode(whole), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_position_gives_its_token_with_its_last_sample():
    stream = tiny().stream()
    assert stream.encode(torch.zeros(1, 1, 319)).shape[1] == 0
    assert stream.encode(torch.zeros(1, 1, 1)).shape[1] == 1
    assert stream.decode(torch.zeros(1, 1, 4, dtype=torch.int64)).shape[-1] == 320


@torch.no_grad()
def test_the_last_position_is_completed_with_zeros():
    tokenizer = tiny()
    x = torch.rand(1, 1, 500) - 0.5
    padded = torch.cat([x, torch.zeros(1, 1, 140)], dim=-1)
    assert torch.equal(tokenizer.encode(x).indices, tokenizer.encode(padded).indices)


@torch.no_grad()
def test_some_codebooks_decode():
    tokenizer = tiny()
    x = torch.rand(1, 1, 640) - 0.5
    some, whole = tokenizer.encode(x, num_codebooks=2), tokenizer.encode(x)
    assert torch.equal(some.indices, whole.indices[..., :2])
    torch.testing.assert_close(tokenizer.decode(some), tokenizer.decode(whole, num_codebooks=2))
