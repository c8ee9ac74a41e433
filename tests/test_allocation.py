"""Numbers of tokens: encoding to one or to an error, prefixes, missing tokens, ``.tok`` files."""

import pytest
import torch
from torch import nn

from tokenizers_vq.backbones.base import TokenDecoder, TokenEncoder
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers.lfq import LFQ
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import SignalSpec

IMAGE = SignalSpec("image", channels=1)
N, BITS = 4, 6


class Digits(TokenEncoder):
    """Writes the mean of a picture as N signed bits of halving weight, one per token."""

    def __init__(self):
        super().__init__(BITS, (2, 2), IMAGE)
        self.size, self.counts = (4, 4), tuple(range(1, N + 1))

    def forward(self, x, num_tokens=None):
        count = self.check_count(num_tokens)
        rest, tokens = x.mean((1, 2, 3)), []
        for k in range(count):
            sign = torch.where(rest > 0, 1.0, -1.0)
            tokens.append(sign)
            rest = rest - sign / 2 ** (k + 1)
        return torch.stack(tokens, 1)[..., None].expand(-1, -1, BITS)


class Sum(TokenDecoder):
    """Adds the bits up; notes what it was asked."""

    def __init__(self, counts=tuple(range(1, N + 1))):
        super().__init__(BITS, (2, 2), IMAGE)
        self.size, self.counts = (4, 4), counts
        self.scale = nn.Parameter(torch.ones(()))
        self.calls = []

    @property
    def last_layer(self):
        return self.scale

    def forward(self, z_q, mask=None, **options):
        self.check_latents(z_q)
        self.calls.append((z_q.shape[1], mask))
        weights = 0.5 ** torch.arange(1, z_q.shape[1] + 1)
        present = 1.0 if mask is None else mask
        mean = (z_q[..., 0].sign() * weights * present).sum(1) * self.scale
        return mean[:, None, None, None].expand(-1, 1, 4, 4)


def made(**options):
    return Tokenizer(Digits(), LFQ(bits=BITS), Sum(**options)).eval()


def flat(*means):
    return torch.tensor(means)[:, None, None, None].expand(-1, 1, 4, 4)


def test_a_number_of_tokens_does_not_run_the_decoder():
    tok = made()
    x = flat(0.3, -0.7)
    whole = tok.encode(x).indices
    assert whole.shape == (2, N, 1)
    for count in (1, 3, N):
        assert tok.encode(x, num_tokens=count).indices.equal(whole[:, :count])
    assert tok.decoder.calls == []
    with pytest.raises(ShapeError) as error:
        tok.encode(x, num_tokens=5)
    assert str(error.value) == ("Digits: expected num_tokens of 1..4; got 5. Choose one of these.")


def test_a_target_error_takes_as_few_tokens_per_item():
    tok = made()
    # after 1 token 0.5 is exact; 0.75 needs 2; 0.6 is 0.15 off after 2 and 0.025 after 3
    codes = tok.encode(flat(0.5, 0.75, 0.6), target_error=0.02)
    assert (codes.indices[..., 0] >= 0).sum(1).tolist() == [1, 2, 3]
    assert codes.indices.shape == (3, 3, 1)
    assert codes.indices[0, 1:].eq(-1).all()
    got = tok.decode(codes)[:, 0, 0, 0]
    torch.testing.assert_close(got, torch.tensor([0.5, 0.75, 0.625]))
    mask = tok.decoder.calls[-1][1]
    assert mask.equal(codes.indices[..., 0] >= 0)
    # nothing is near enough: all tokens
    assert tok.encode(flat(0.51), target_error=1e-9).indices.shape == (1, N, 1)
    assert tok.encode(torch.zeros(0, 1, 4, 4), target_error=0.1).indices.shape == (0, 0, 1)


def test_prefixes_decode_to_coarser_signals():
    tok = made()
    codes = tok.encode(flat(0.6))
    got = [tok.decode(codes, num_tokens=n)[0, 0, 0, 0].item() for n in (1, 2, 3)]
    assert got == pytest.approx([0.5, 0.75, 0.625])
    assert tok.decode(codes.indices[:, :2])[0, 0, 0, 0].item() == pytest.approx(0.75)
    for count in (0, 5):
        with pytest.raises(ShapeError) as error:
            tok.decode(codes, num_tokens=count)
        assert str(error.value) == (
            f"decode: expected num_tokens of 1..4, as many as there are; got {count}. "
            "Encode with more tokens."
        )


def test_a_decoder_of_one_number_refuses_prefixes():
    tok = made(counts=(N,))
    with pytest.raises(ShapeError, match="Sum: expected 4 tokens; got 2"):
        tok.decode(tok.encode(flat(0.6)), num_tokens=2)


def test_wishes_that_make_no_sense_are_refused():
    tok, x = made(), flat(0.1)
    with pytest.raises(ConfigError) as error:
        tok.encode(x, num_tokens=2, target_error=0.1)
    assert str(error.value) == (
        "encode: expected num_tokens or target_error; got both. Give one of them."
    )
    with pytest.raises(ConfigError) as error:
        tok.encode(x, target_error=0.0)
    assert str(error.value) == (
        "encode: expected a target_error above 0; got 0.0. It is the mean absolute error in units "
        "of the signal's range."
    )
    config = {**read_config("backbone", "tiny_cnn2d"), "quantizer": {"name": "lfq", "bits": 4}}
    grid = Tokenizer.from_config(config)
    picture = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ConfigError) as error:
        grid.encode(picture, num_tokens=2)
    assert str(error.value) == (
        "encode: expected an encoder to a sequence of tokens; got CNN2dEncoder, whose grid "
        "follows the signal. Leave num_tokens and target_error out."
    )
    with pytest.raises(ShapeError) as error:
        grid.decode(grid.encode(picture), num_tokens=1)
    assert str(error.value) == (
        "decode: expected a decoder of a sequence of tokens; got CNN2dDecoder. "
        "Leave num_tokens out."
    )


def test_files_keep_prefixes_and_missing_tokens():
    from tokenizers_vq.bitstream import from_bytes, to_bytes

    tok = made()
    x = flat(0.5, 0.75, 0.6)
    short, mixed = tok.encode(x, num_tokens=2), tok.encode(x, target_error=0.02)
    for codes in (short, mixed):
        again = from_bytes(to_bytes(codes))
        assert again.indices.equal(codes.indices)
        assert tok.decode(again).equal(tok.decode(codes))
    assert tok.decompress(tok.compress(x)).equal(tok.decode(tok.encode(x)))
    # 6 of 9 tokens of 6 bits take 5 bytes instead of 7; the runs (1, 2, 2, 1, 3) and their number 6
    assert len(to_bytes(mixed)) == len(to_bytes(tok.encode(x, num_tokens=3))) - 2 + 6


@torch.no_grad()
@pytest.mark.parametrize("name", ["tiny_titok", "tiny_one_d_piece", "tiny_tatitok"])
def test_the_image_sequences_go_through(name):
    torch.manual_seed(0)
    quantizer = {"name": "lfq", "bits": 8}
    tok = Tokenizer.from_config({**read_config("backbone", name), "quantizer": quantizer}).eval()
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    codes = tok.encode(x)
    assert codes.indices.shape == (2, 16, 1)
    torch.testing.assert_close(tok.decode(codes, raw=True), tok(x).x_hat, rtol=1e-4, atol=1e-5)
    if name == "tiny_one_d_piece":
        missing = codes.indices.clone()
        missing[1, 7:] = -1
        decoded = tok.decode(missing, raw=True)
        expected = tok.decode(codes, num_tokens=7, raw=True)[1]
        torch.testing.assert_close(decoded[1], expected, rtol=1e-4, atol=1e-5)
