"""Attention to a window by absolute positions: against its formula, and in pieces."""

import math

import pytest
import torch

from tokenizers_vq.backbones.stream_transformer import (
    BLOCK,
    StreamTransformer,
    Ways,
    WindowAttention,
    ways_of,
)
from tokenizers_vq.errors import ConfigError

WAYS = {"layers": 2, "heads": 2, "hidden": 16, "past": 4, "layer_scale": 1.0}


def rotated(x, rotary, period):
    """Channel c and c + rotary / 2 of position p as a complex number, turned by p / wavelength."""
    pairs = torch.complex(*x[..., :rotary].double().chunk(2, dim=-1))
    steps = torch.arange(0, rotary, 2, dtype=torch.float64) / rotary
    angle = torch.arange(len(x), dtype=torch.float64)[:, None] * period**-steps
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag, x[..., rotary:].double()], dim=-1)


@pytest.mark.parametrize("rotary", [8, 4])
@pytest.mark.parametrize(("past", "future"), [(3, 0), (2, 3)])
@torch.no_grad()
def test_attention_is_its_formula(rotary, past, future):
    torch.manual_seed(0)
    ways = Ways(heads=2, past=past, future=future, rotary=rotary, qk_norm=True, period=100.0)
    layer = WindowAttention(16, ways)
    x = torch.randn(1, 9, 16)
    expected = torch.zeros(9, 16, dtype=torch.float64)
    parts = (x[0].double() @ layer.qkv.weight.double().T).unflatten(-1, (3, 2, 8))
    for head in range(2):
        q, k, v = parts[:, :, head].unbind(1)
        q, k = (
            (one - one.mean(-1, keepdim=True))
            / (one.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
            for one in (q, k)
        )
        q, k = rotated(q, rotary, 100.0), rotated(k, rotary, 100.0)
        for i in range(9):
            near = slice(max(0, i - past), i + future + 1)
            weights = (k[near] @ q[i] / math.sqrt(8)).softmax(0)
            expected[i, 8 * head : 8 * head + 8] = weights @ v[near]
    expected = expected @ layer.proj.weight.double().T
    torch.testing.assert_close(layer(x)[0].double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cuts", [[1] * 20, [7, 0, 13], [19, 1], [3, 5, 12]], ids=str)
@torch.no_grad()
def test_pieces_give_what_the_whole_gives_though_the_window_is_full(cuts):
    torch.manual_seed(0)
    layers = StreamTransformer(8, ways_of(WAYS))
    x = torch.randn(2, 8, 20)
    state, got = None, []
    for piece in x.split(cuts, dim=-1):
        y, state = layers.step(piece, state, False)
        got.append(y)
    torch.testing.assert_close(torch.cat(got, dim=-1), layers(x), rtol=1e-5, atol=1e-5)
    assert state[0][1].shape[2] == WAYS["past"]


@torch.no_grad()
def test_long_signals_attend_in_blocks():
    torch.manual_seed(0)
    layers = StreamTransformer(8, ways_of({**WAYS, "layers": 1, "future": 2}))
    x = torch.randn(1, 8, BLOCK + 20)
    far = x.clone()
    far[..., : BLOCK - 14] = 0.0
    torch.testing.assert_close(layers(x)[..., -30:], layers(far)[..., -30:])


def test_what_sees_the_future_does_not_stream():
    layers = StreamTransformer(8, ways_of({**WAYS, "future": 1}))
    with pytest.raises(ConfigError) as caught:
        layers.step(torch.zeros(1, 8, 0), None, False)
    assert str(caught.value) == (
        "stream: expected attention to the past only; got a window that sees 1 positions ahead. "
        "Encode whole signals, or set future to 0."
    )


def test_mistakes_in_the_options():
    with pytest.raises(ConfigError, match=r"^transformer past: expected a number of 0 or more"):
        ways_of({"past": -1})
    with pytest.raises(ConfigError, match=r"^backbone 'transformer' has no option 'window'"):
        ways_of({"window": 3})
    with pytest.raises(ConfigError, match=r"^WindowAttention: expected heads that divide"):
        StreamTransformer(8, ways_of({**WAYS, "heads": 3}))
    with pytest.raises(ConfigError, match=r"^WindowAttention: expected rotary channels in pairs"):
        StreamTransformer(8, ways_of({**WAYS, "rotary": 3}))
