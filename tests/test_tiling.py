import pytest
import torch

from tokenizers_vq.configs import read_config, tokenizer_config
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.tiling import tiled_decode, tiled_encode
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Codes


def local(**decoder):
    """A tokenizer at f4 without normalisation: it sees less than 24 pixels far."""
    plain = {"norm": "none", "adaptive": False, "bias": True}
    half = {"name": "cnn2d", "family": "magvit2", "width": 4, "channel_mult": [1, 1], "blocks": 1}
    half |= {"patch": 2, "conventions": plain}
    config = {"signal": {"kind": "image"}, "dim": 6, "encoder": half, "decoder": half | decoder}
    config["quantizer"] = {"name": "fsq", "levels": [5] * 6}
    return Tokenizer.from_config(config).eval()


def picture(*size):
    return torch.rand(2, 3, *size) * 2 - 1


@pytest.mark.parametrize("size", [(300, 420), (128, 129), (96, 131), (50, 40), (288, 160)])
def test_tiles_are_the_whole_inside_the_receptive_field(size):
    tokenizer, x = local(), picture(*size)
    codes, tiled = tokenizer.encode(x), tiled_encode(tokenizer, x, 192, 96)
    assert tiled.shape == codes.shape
    assert (tiled.indices == codes.indices).float().mean() > 0.999  # but for ties of rounding
    expected = tokenizer.decode(codes, raw=True)
    found = tiled_decode(tokenizer, codes, 192, 96, raw=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    clamped = tiled_decode(tokenizer, codes, 192, 96)
    assert clamped.abs().max() <= 1


def test_weights_add_to_one_without_overlap_and_with():
    tokenizer = local()
    torch.nn.init.zeros_(tokenizer.decoder.conv_out.weight)
    torch.nn.init.constant_(tokenizer.decoder.conv_out.bias, 0.5)
    codes = tokenizer.encode(picture(200, 260))
    for tile, overlap in ((64, 0), (64, 4), (64, 32), (128, 60)):
        constant = tiled_decode(tokenizer, codes, tile, overlap, raw=True)
        plain = tokenizer.decode(codes, raw=True)
        torch.testing.assert_close(constant, plain)


def test_group_normalisation_sees_the_tile_and_stays_near():
    tokenizer = Tokenizer.from_config(tokenizer_config("tiny_cnn2d_maskgit", "fsq")).eval()
    x = picture(160, 160)
    codes = tokenizer.encode(x)
    whole, tiled = tokenizer.decode(codes), tiled_decode(tokenizer, codes, 96, 48)
    assert (whole - tiled).square().mean() < 0.5 * whole.var()


def test_memory_does_not_grow_with_the_picture(monkeypatch):
    tokenizer, seen = local(), []
    for name in ("encoder", "decoder"):
        part = getattr(tokenizer, name)
        part.register_forward_hook(lambda _, given, made: seen.append(given[0][0].numel()))
    for size in ((256, 256), (256, 1024)):
        tiled_decode(tokenizer, tiled_encode(tokenizer, picture(*size), 128, 32), 128, 32)
    assert max(seen[: len(seen) // 4]) == max(seen)
    assert max(seen) == 3 * 128 * 128


def test_uint8_pictures_are_converted_tile_by_tile():
    tokenizer = local()
    x = torch.randint(0, 256, (1, 3, 150, 150), dtype=torch.uint8)
    as_float = x.float() / 127.5 - 1
    one, two = (tiled_encode(tokenizer, y, 96, 32).indices for y in (x, as_float))
    assert torch.equal(one, two)


def test_tiles_agree_about_noise():
    tokenizer = local(noise_channels=3)
    codes = tokenizer.encode(picture(130, 130))
    whole = tokenizer.decode(codes, raw=True, generator=torch.Generator().manual_seed(1))
    tiled = tiled_decode(
        tokenizer, codes, 96, 48, raw=True, generator=torch.Generator().manual_seed(1)
    )
    # a quarter of the overlap is less than it sees: blended, but the same noise
    assert (whole - tiled).abs().mean() < 0.05 * whole.std()


def test_what_cannot_be_tiled_is_named():
    tokenizer = local()
    with pytest.raises(ConfigError) as error:
        tiled_encode(tokenizer, picture(64, 64), 62, 8)
    assert str(error.value) == (
        "tiled_encode: expected tile and overlap in multiples of the stride 4, the overlap at most "
        "half the tile; got 62 and 8. Choose others."
    )
    codes = tokenizer.encode(picture(64, 64))
    with pytest.raises(ShapeError) as error:
        tiled_decode(tokenizer, Codes(codes.indices, (32, 64), codes.codebook_sizes), 64, 32)
    assert str(error.value) == (
        "tiled_decode: expected a grid of (8, 16) for a picture of (32, 64); got (16, 16). Codes "
        "keep the shape that was encoded."
    )
    with pytest.raises(ConfigError, match="expected decoder options of none; got 'generator'"):
        tiled_decode(tokenizer, codes, generator=None)
    config = {**read_config("backbone", "tiny_cnn2d"), "quantizer": read_config("quantizer", "var")}
    with pytest.raises(ConfigError) as error:
        tiled_encode(Tokenizer.from_config(config), picture(64, 64))
    assert str(error.value) == (
        "tiled_encode: expected a tokenizer of pictures of any size that quantizes each position "
        "by itself; got CNN2dEncoder with MultiScale. Resize the picture and encode it whole."
    )
