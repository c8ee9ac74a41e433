"""Imported T2M-GPT gives what functions written from the paper give."""

import pytest
import torch
from reference import motion
from reference.published_checks import check_strictness, message

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published import from_published


def wrapped(state):
    return {"net": {f"vqvae.{key}": value for key, value in state.items()}}


@torch.no_grad()
@pytest.mark.parametrize("layout", [dict, wrapped])
def test_tokens_and_features_are_those_of_the_formulas(layout):
    state = motion.make()
    tok = from_published("t2m_gpt", layout(state))
    x = torch.randn(2, 23, 16, generator=torch.Generator().manual_seed(1))
    z = motion.encode(state, x)
    torch.testing.assert_close(tok.encoder(x).mT, z)
    indices, q = motion.quantize(state, z)
    codes = tok.encode(x)
    assert torch.equal(codes.indices, indices)
    torch.testing.assert_close(tok.decode(codes, raw=True), motion.decode(state, q))
    assert tok.stride == (4,)


@torch.no_grad()
def test_published_statistics_give_features_in_their_own_units():
    state = motion.make()
    tok, plain = (from_published("t2m_gpt", state) for _ in range(2))
    mean, std = torch.randn(23), 0.1 + torch.rand(23)
    for part in (tok.encoder, tok.decoder):
        part.standardize.fit(mean, std)
    x = torch.randn(1, 23, 8)
    codes = plain.encode((x - mean[:, None]) / std[:, None])
    assert torch.equal(tok.encode(x).indices, codes.indices)
    expected = plain.decode(codes) * std[:, None] + mean[:, None]
    torch.testing.assert_close(tok.decode(codes.indices), expected)


def test_the_published_sizes_load_and_are_counted():
    shapes = {key: value.shape for key, value in motion.make(512, 263, 512, 512).items()}
    assert len(shapes) == 67
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    tok = from_published("t2m_gpt", wrapped(state))
    ours = sum(p.numel() for p in tok.parameters()) + tok.quantizer.codebook.numel()
    assert ours == sum(value.numel() for value in state.values()) == 19_698_951
    assert tok.signal.frame_rate == 20


def test_strict_both_ways():
    state = motion.make()
    key, ours = "decoder.model.6.weight", "decoder.last.weight"
    check_strictness("t2m_gpt", state, None, key=key, shown=ours)
    assert message("t2m_gpt", state, {"nb_code": 9}, CheckpointError) == (
        "from_published('t2m_gpt'): expected nb_code of 7, as the tensors have it; got 9 in "
        "config. Pass the constructor values of this checkpoint."
    )
