import pytest
import torch

from tokenizers_vq.backbones.dac import DACDecoder, DACEncoder
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec

AUDIO = SignalSpec("audio", 1, sample_rate=16000)


def codec(ratios, **conventions):
    torch.manual_seed(0)
    encoder = DACEncoder(6, AUDIO, 2, ratios, conventions)
    decoder = DACDecoder(6, AUDIO, 2 ** (len(ratios) + 1), ratios[::-1], conventions)
    return encoder.eval(), decoder.eval()


@torch.no_grad()
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("length", [1, 14, 15, 16, 31])
def test_every_length_comes_back_also_with_odd_strides(length, whole):
    encoder, decoder = codec((3, 5), whole=whole)
    x = torch.randn(1, 1, length)
    z = encoder(encoder.frame(x))
    assert z.shape == (1, -(-length // 15), 6)
    x_hat = decoder(z)
    assert x_hat.shape[-1] >= length
    assert x_hat.abs().max() <= 1  # a tanh is the last layer


@torch.no_grad()
def test_published_odd_strides_lose_their_last_samples():
    _, decoder = codec((3, 5), whole=False)
    x_hat = decoder(torch.randn(1, 4, 6))
    assert x_hat.shape[-1] == 60
    assert bool((x_hat[..., -1] == 0).all())


def test_conventions_that_do_not_exist_are_named():
    with pytest.raises(ConfigError, match="wide"):
        codec((2, 2), wide=True)
