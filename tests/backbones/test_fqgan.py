import pytest
import torch

from tokenizers_vq.backbones.fqgan import FQGANDecoder, FQGANEncoder
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

IMAGE = SignalSpec("image")
TINY = {"width": 8, "channel_mult": (1, 2), "blocks": 1, "z_channels": 8}
# Parameters of the published networks; of their heads for training among them; codebooks.
PUBLISHED = {
    "fqgan_dual_f16": (150_410_131, 39_115_776, 2),
    "fqgan_triple_f8": (159_586_331, 28_522_368, 3),
}


def test_each_codebook_has_its_own_adapter():
    encoder = FQGANEncoder(6, IMAGE, **TINY, codebooks=3, size=16, layers=1, heads=2).eval()
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    before = encoder(x)
    with torch.no_grad():
        encoder.adapters[1].quant_conv.bias += 1
    moved = (encoder(x) - before).detach().abs().amax((0, 1, 2))
    assert (moved > 0.5).tolist() == [False, False, True, True, False, False]


def test_positions_tell_places_apart():
    encoder = FQGANEncoder(4, IMAGE, **TINY, size=16, layers=1, heads=2).eval()
    z = encoder(torch.zeros(1, 3, 16, 16))
    assert z[0, 3, 3].sub(z[0, 4, 4]).abs().max() > 0


def test_it_works_in_its_own_range():
    shared = {**TINY, "size": 16, "layers": 1, "heads": 2}
    outside = FQGANEncoder(4, IMAGE, **shared)
    inside = FQGANEncoder(4, SignalSpec("image", 3, (0.0, 1.0)), **shared)
    inside.load_state_dict(outside.state_dict())
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(inside(x), outside(x * 2 - 1))


def test_the_decoder_takes_any_grid():
    assert FQGANDecoder(4, IMAGE, **TINY)(torch.zeros(1, 3, 5, 4)).shape == (1, 3, 6, 10)


@pytest.mark.parametrize("options", [{"codebooks": 3}, {"codebooks": 0}, {"size": 15}])
def test_wrong_options_are_named(options):
    given = {"codebooks": 2, "size": 16, **options}
    with pytest.raises(ConfigError) as error:
        FQGANEncoder(4, IMAGE, **TINY, **given)
    assert str(error.value).splitlines()[0] == (
        "FQGANEncoder: expected codebooks that divide dim, and a size that is a multiple of 2; got "
        f"{given['codebooks']} codebooks, dim 4 and size {given['size']}. "
        "Correct the backbone config."
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    total, heads, codebooks = PUBLISHED[name]
    config = read_config("backbone", name)
    with torch.device("meta"):
        parts = [
            build(part, config[part], dim=config["dim"], signal=SignalSpec(**config["signal"]))
            for part in ("encoder", "decoder")
        ]
    own = sum(p.numel() for part in parts for p in part.parameters())
    assert own + codebooks * 16384 * 8 + heads == total
