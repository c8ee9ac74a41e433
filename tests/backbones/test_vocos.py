import pytest
import torch

from tokenizers_vq.backbones.vocos import VocosDecoder
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.overlap_add import inverse_stft, inverse_stft_step
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import SignalSpec

AUDIO = SignalSpec("audio", 1, sample_rate=16000)


def decoder(**conventions):
    torch.manual_seed(0)
    made = VocosDecoder(4, AUDIO, 8, 64, 32, 2, conventions=conventions).eval()
    for p in made.parameters():  # larger than training starts, so that all of it matters
        p.data += 0.1 * torch.randn_like(p)
    return made


def codec():
    config = read_config("backbone", "tiny_vocos")
    return Tokenizer.from_config({**config, "quantizer": {"name": "vq", "codebook_size": 16}})


@torch.no_grad()
@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_chunks_give_the_samples_of_the_whole(padding, chunk):
    net = decoder(padding=padding)
    z = torch.randn(2, 40, 4)
    torch.testing.assert_close(net(z, chunk=chunk), net(z), rtol=1e-4, atol=1e-5)
    short = net(z, chunk=chunk, overlap=0)
    assert short.shape == net(z).shape
    assert chunk == 40 or not torch.allclose(short, net(z), atol=1e-3)


@torch.no_grad()
def test_with_attention_all_latents_decide_and_chunks_decide_alone():
    net = decoder(attention=True)
    z = torch.randn(1, 80, 4)
    other = z.clone()
    other[:, -1] += 10
    assert not torch.allclose(net(z)[..., :8], net(other)[..., :8], atol=1e-4)
    first, again = (net(x, chunk=20, overlap=0)[..., :160] for x in (z, other))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, net(z[:, :20]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_settings_of_the_norms_are_options_of_decode():
    tok = codec().eval()
    codes = torch.randint(16, (1, 6, 1))
    for block in tok.decoder.modules():
        if hasattr(block, "shift"):
            block.shift += torch.randn_like(block.shift)
    assert torch.equal(tok.decode(codes), tok.decode(codes, bandwidth_id=0))
    assert not torch.allclose(tok.decode(codes, bandwidth_id=1), tok.decode(codes))
    assert tok.decode(codes, bandwidth_id=1, chunk=2).shape == (1, 1, 6 * 320)
    with pytest.raises(ConfigError) as error:
        tok.decode(codes, bandwidth_id=4)
    assert str(error.value) == (
        "VocosDecoder: expected a bandwidth_id of 0 to 3; got 4. They are the trained bit rates, "
        "in order."
    )


def test_options_that_cannot_be_are_named():
    z = torch.zeros(1, 3, 4)
    cases = [
        (lambda: decoder()(z, bandwidth_id=1),
         "VocosDecoder: expected no bandwidth_id, as its norms have one setting; got 1. Leave it "
         "out."),
        (lambda: decoder()(z, chunk=0),
         "VocosDecoder: expected chunks of 1 latent and more and overlaps of 0 and more; got "
         f"chunk 0, overlap {decoder().reach}. Without a chunk all is decoded at once."),
        (lambda: decoder(padding="valid"),
         "vocos: expected padding of same or center; got 'valid'. Correct the backbone config."),
        (lambda: decoder(default_id=1),
         "vocos: expected a default_id below the number of ids 0; got 1. Correct the backbone "
         "config."),
        (lambda: VocosDecoder(4, AUDIO, 8, 8, 8, 0),
         "vocos: expected at least 1 block; got 0. Correct the backbone config."),
        (lambda: VocosDecoder(4, AUDIO, 8, 8, 8, 1, 12),
         "vocos: expected an even n_fft of at least 2 x 8, the stride; got 12. Correct the "
         "backbone config."),
        (lambda: VocosDecoder(4, SignalSpec("audio", 2, sample_rate=16000), 8),
         "vocos: expected a signal of 1 channel; got 2. Correct the backbone config."),
    ]  # fmt: skip
    for call, message in cases:
        with pytest.raises(ConfigError) as error:
            call()
        assert str(error.value) == message
    with pytest.raises(ConfigError, match="conventions"):
        decoder(dim=3)


def test_streams_are_refused_in_one_sentence():
    with pytest.raises(ConfigError) as error:
        codec().eval().stream()
    assert str(error.value) == (
        "stream: expected causal convolutions without normalisation over time; got another one. "
        "Encode whole signals, or choose a causal backbone."
    )
    with pytest.raises(ConfigError) as error:
        decoder().step(torch.zeros(1, 1, 4), None, False)
    assert str(error.value) == (
        "stream: expected a causal decoder; got a VocosDecoder that sees the future. Decode whole "
        "signals, or choose a causal backbone."
    )


@torch.no_grad()
def test_centred_spectra_give_what_torch_gives():
    window = torch.hann_window(32)
    spectra = torch.randn(2, 17, 9, dtype=torch.complex64)
    expected = torch.istft(spectra, 32, 8, window=window, center=True)
    got = inverse_stft(spectra.mT, window, 8, "center")
    assert got.shape == (2, 1, 72)
    torch.testing.assert_close(got[:, 0, :64], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("padding", ["same", "center"])
def test_the_spectra_of_a_signal_give_the_signal(padding):
    x, window = torch.randn(1, 72), torch.hann_window(32)
    before = 12 if padding == "same" else 16
    framed = torch.nn.functional.pad(x, (before, 32)).unfold(1, 32, 8)[:, :9]
    got = inverse_stft(torch.fft.rfft(framed * window), window, 8, padding)
    torch.testing.assert_close(got[:, 0, :64], x[:, :64], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.parametrize("cuts", [[1] * 9, [0, 4, 0, 5], [9, 0]], ids=str)
def test_spectra_in_pieces_give_the_samples_of_all(padding, cuts):
    window = torch.hann_window(32)
    spectra = torch.randn(2, 9, 17, dtype=torch.complex64)
    state, pieces = None, []
    parts = spectra.split(cuts, dim=1)
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        x, state = inverse_stft_step(part, window, 8, padding, state, last)
        pieces.append(x)
    expected = inverse_stft(spectra, window, 8, padding)
    torch.testing.assert_close(torch.cat(pieces, -1), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_causal_decoder_in_pieces():
    net = decoder(causal=True, padding="center")
    z = torch.randn(2, 11, 4)
    x, state = net.step(z[:, :1], None, False)
    assert x.shape == (2, 1, 0)  # the first window's middle is the first sample
    pieces = [x]
    for part, last in ((z[:, 1:1], False), (z[:, 1:6], False), (z[:, 6:], True)):
        x, state = net.step(part, state, last)
        pieces.append(x)
    torch.testing.assert_close(torch.cat(pieces, -1), net(z), rtol=1e-4, atol=1e-5)
    other = z.clone()
    other[:, 6:] += 1
    before = 6 * 8 - 16  # windows of 32 samples around each position's first sample
    assert torch.equal(net(other)[..., :before], net(z)[..., :before])


def test_attention_sees_the_future():
    with pytest.raises(ConfigError) as error:
        decoder(causal=True, attention=True)
    assert str(error.value) == (
        "vocos: expected no attention in a causal decoder, as it sees all of the time; got both. "
        "Correct the backbone config."
    )
