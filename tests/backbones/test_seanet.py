import pytest
import torch

from tokenizers_vq.backbones.seanet import SEANetDecoder, SEANetEncoder
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

AUDIO = SignalSpec("audio", 1, sample_rate=16000)


def counted(part):
    return sum(p.numel() for p in part.parameters())


def test_the_published_network_has_its_published_size():
    config = read_config("backbone", "seanet_encodec_24k")
    shared = {"dim": config["dim"], "signal": SignalSpec(**config["signal"])}
    with torch.device("meta"):
        encoder = build("encoder", config["encoder"], **shared)
        decoder = build("decoder", config["decoder"], **shared)
    # 7.426 M weights each, the lengths of weight normalisation included
    assert counted(encoder) == 7_425_792
    assert counted(decoder) == 7_426_018


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 7, 8, 9, 31])
@pytest.mark.parametrize("causal", [True, False])
def test_every_length_gives_whole_positions_and_comes_back(length, causal):
    ways = {"causal": causal, "pad": "reflect"}
    encoder = SEANetEncoder(3, AUDIO, 2, (4, 2), ways)
    decoder = SEANetDecoder(3, AUDIO, 2, (4, 2), ways)
    z = encoder(torch.randn(1, 1, length))
    assert z.shape == (1, -(-length // 8), 3)
    assert decoder(z).shape == (1, 1, 8 * z.shape[1])


@torch.no_grad()
def test_a_causal_encoder_does_not_see_the_future():
    encoder = SEANetEncoder(3, AUDIO, 2, (4, 2), {"lstm": 1})
    x = torch.randn(1, 1, 64)
    changed = x.clone()
    changed[..., 40:] += 1
    same = (encoder(x) == encoder(changed)).all(-1)[0]
    assert same.tolist() == [True] * 5 + [False] * 3


@pytest.mark.parametrize(
    ("conventions", "sentence"),
    [
        ({"pad": "mirror"}, "seanet pad: expected zeros or reflect or replicate; got 'mirror'."),
        ({"lstm": -1}, "seanet lstm: expected a number of 0 or more; got -1."),
    ],
)
def test_conventions_that_do_not_exist(conventions, sentence):
    with pytest.raises(ConfigError) as caught:
        SEANetEncoder(3, AUDIO, 2, (4, 2), conventions)
    assert str(caught.value).startswith(sentence)
