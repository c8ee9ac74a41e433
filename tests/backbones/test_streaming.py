"""A signal in pieces gives what the whole signal gives."""

import pytest
import torch

from tokenizers_vq.backbones.conv1d import LSTM, Conv1d, ConvTranspose1d
from tokenizers_vq.backbones.seanet import SEANetDecoder, SEANetEncoder
from tokenizers_vq.backbones.streaming import Chain, Residual, step, tensors_of
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec

CUTS = ([1] * 200, [3, 1, 0, 7, 50, 2], [200], [0, 0, 40], [5] * 40)


def in_pieces(layer, x, cuts, axis=-1):
    """What the layer says to ``x`` cut into pieces, the rest as the last one."""
    outputs, state, start = [], None, 0
    for cut in cuts:
        count = min(cut, x.shape[axis] - start)
        y, state = step(layer, x.narrow(axis, start, count), state, False)
        outputs.append(y)
        start += count
    y, state = step(layer, x.narrow(axis, start, x.shape[axis] - start), state, True)
    return torch.cat([*outputs, y], dim=-2 if isinstance(layer, SEANetEncoder) else -1)


@pytest.mark.parametrize("pad", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(7, 1, 1), (3, 1, 4), (4, 2, 1)])
@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 41])
@torch.no_grad()
def test_a_convolution_in_pieces(pad, kernel, stride, dilation, length):
    conv = Conv1d((2, 3), kernel, stride=stride, dilation=dilation, causal=True, pad=pad)
    x = torch.randn(2, 2, length)
    expected = conv(x)
    assert expected.shape == (2, 3, -(-length // stride))
    for cuts in CUTS:
        torch.testing.assert_close(in_pieces(conv, x, cuts), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (10, 5), (3, 2), (2, 2)])
@torch.no_grad()
def test_a_transposed_convolution_in_pieces(kernel, stride):
    conv = ConvTranspose1d((2, 3), kernel, stride, causal=True)
    x = torch.randn(2, 2, 13)
    expected = conv(x)
    assert expected.shape == (2, 3, 13 * stride)
    for cuts in CUTS:
        torch.testing.assert_close(in_pieces(conv, x, cuts), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("conventions", [{}, {"pad": "reflect", "shortcut": True, "lstm": 2}])
@pytest.mark.parametrize("length", [1, 39, 40, 41, 200, 333])
@torch.no_grad()
def test_a_codec_in_pieces(conventions, length):
    signal = SignalSpec("audio", 1, sample_rate=16000)
    encoder = SEANetEncoder(6, signal, 4, (5, 4, 2), conventions).eval()
    decoder = SEANetDecoder(6, signal, 4, (5, 4, 2), conventions).eval()
    x = torch.randn(2, 1, length)
    z = encoder(x)
    assert z.shape == (2, -(-length // 40), 6)
    x_hat = decoder(z)
    assert x_hat.shape == (2, 1, z.shape[1] * 40)
    for cuts in CUTS:
        torch.testing.assert_close(in_pieces(encoder, x, cuts), z, rtol=1e-4, atol=1e-5)
        pieces = in_pieces(decoder, z, cuts, axis=1)
        torch.testing.assert_close(pieces, x_hat, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_state_can_be_gone_back_to():
    layer = Chain(Conv1d((1, 2), 7, causal=True), LSTM(2, 1))
    x = torch.randn(1, 1, 30)
    _, state = layer.step(x[..., :10], None, False)
    kept = [t.clone() for t in tensors_of(state)]
    first, _ = layer.step(x[..., 10:], state, True)
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(state), kept, strict=True))
    again, _ = layer.step(x[..., 10:], state, True)
    assert torch.equal(first, again)


@torch.no_grad()
def test_a_residual_waits_for_its_branch():
    layer = Residual(Conv1d((1, 1), 5, causal=True, pad="reflect"))
    x = torch.randn(1, 1, 12)
    y, _ = layer.step(x[..., :3], None, False)
    assert y.shape[-1] == 0
    torch.testing.assert_close(in_pieces(layer, x, [3, 1, 4]), layer(x))


@pytest.mark.parametrize("shortcut", [None, torch.nn.Conv1d(2, 2, 1)], ids=["identity", "map"])
def test_a_residual_without_gradients_is_the_same_and_leaves_its_input(shortcut):
    layer, x = Residual(torch.nn.ELU(), shortcut), torch.randn(1, 2, 9)
    kept, expected = x.clone(), layer(x)
    with torch.no_grad():
        assert torch.equal(layer(x), expected)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (Conv1d((1, 1), 3), "causal convolutions"),
        (ConvTranspose1d((1, 1), 4, 2), "causal convolutions"),
        (LSTM(1, 1, bidirectional=True), "recurrent layers that run forward"),
        (torch.nn.Conv1d(1, 1, 3), "layers that can run in pieces"),
    ],
)
def test_what_sees_the_future_is_refused(layer, what):
    with pytest.raises(ConfigError, match=f"^stream: expected {what}"):
        step(layer, torch.zeros(1, 1, 8), None, False)


def test_a_kernel_has_no_gaps():
    with pytest.raises(ConfigError) as caught:
        Conv1d((1, 1), 2, stride=3)
    assert str(caught.value).startswith("Conv1d: expected a kernel of at least the stride 3; got 2")
