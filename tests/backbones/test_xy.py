"""XY-Tokenizer's room: lengths, windows, and any head."""

import pytest
import torch

from tokenizers_vq.backbones.xy import Down, XYDecoder, XYEncoder
from tokenizers_vq.chunking import chunked_decode, chunked_encode
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.registry import build
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import SignalSpec

SECOND = 16000


def codec(head=None):
    torch.manual_seed(0)
    head = head or {"name": "vq", "codebook_size": 16}
    return Tokenizer.from_config({**read_config("backbone", "tiny_xy"), "quantizer": head}).eval()


def test_every_part_has_its_published_size():
    config = read_config("backbone", "xy_16k")
    shared = {"dim": config["dim"], "signal": SignalSpec(**config["signal"])}
    with torch.device("meta"):
        encoder, decoder = (build(side, config[side], **shared) for side in ("encoder", "decoder"))
    parts = {**dict(encoder.named_children()), **dict(decoder.named_children())}
    size = {key: sum(p.numel() for p in part.parameters()) for key, part in parts.items()}
    assert size["said"] == size["sound"] == 87_002_112
    assert size["said_adapter"] == 28_349_952
    assert size["join"] + size["joined"] == 29_530_368
    assert size["down"] == 28_317_696
    assert size["narrow"] + size["adapter"] + size["widen"] == 33_072_384
    assert size["up"] == 9_437_184
    assert size["stack"] + size["conv1"] + size["conv2"] == 87_001_424
    assert size["vocos"] == 126_754_946


@torch.no_grad()
def test_four_positions_become_one():
    down = Down(3)
    x = torch.randn(1, 8, 3)
    h = torch.stack([x[0, :4].flatten(), x[0, 4:].flatten()])
    side = [conv.weight.mT.flatten(1) for conv in (down.gate, down.up)]
    gate, up = (h @ weight.T for weight in side)
    rows = h + (gate * torch.sigmoid(gate) * up) @ down.down.weight.T
    mean, var = rows.mean(-1, keepdim=True), rows.var(-1, keepdim=True, correction=0)
    torch.testing.assert_close(down(x)[0], (rows - mean) / (var + 1e-5).sqrt())


@torch.no_grad()
def test_long_signals_are_windows_of_30_s_of_which_20_s_count():
    tok = codec()
    x = torch.rand(1, 1, 41 * SECOND + 5) - 0.5
    z, first = tok.encoder(x), next(tok.encoder.pieces(x[..., : 30 * SECOND]))
    assert z.shape[1] == -(-x.shape[-1] // 1280)
    torch.testing.assert_close(z[:, :250], first, rtol=0, atol=1e-5)
    last = tok.encoder(x[..., 40 * SECOND :])
    torch.testing.assert_close(z[:, 500:], last, rtol=0, atol=1e-5)
    codes = tok.encode(x)
    assert torch.equal(codes.indices, tok.quantizer.encode(z))
    assert torch.equal(chunked_encode(tok, x).indices, codes.indices)
    x_hat = tok.decode(codes)
    assert x_hat.shape == x.shape
    torch.testing.assert_close(chunked_decode(tok, codes, chunk=SECOND), x_hat, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "head", [{"name": "fsq", "levels": [3, 3]}, {"name": "lfq", "bits": 4}], ids=str
)
def test_any_head_fits(head):
    tok = codec(head)
    x = torch.rand(1, 1, 3000) - 0.5
    assert tok.decode(tok.encode(x)).shape == x.shape


def test_only_one_channel_of_16_khz():
    for part in (XYEncoder, XYDecoder):
        with pytest.raises(ConfigError) as error:
            part(8, SignalSpec("audio", 2, sample_rate=16000))
        assert str(error.value) == (
            "xy: expected a signal of 1 channel and 16000 Hz; got 2 and 16000. Resample it."
        )
