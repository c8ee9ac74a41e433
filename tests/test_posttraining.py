import numpy as np
import pytest
import torch
from PIL import Image

import tokenizers_vq
from tokenizers_vq import cli, hub
from tokenizers_vq.configs import read_config, tokenizer_config
from tokenizers_vq.errors import ConfigError, DataError, ShapeError
from tokenizers_vq.tokenizer import Tokenizer

BRIDGE = {"name": "token_bridge", "bits": 8}


def continuous(**options):
    torch.manual_seed(0)
    config = tokenizer_config("tiny_cnn2d", "gaussian")
    config["quantizer"] = {"name": "gaussian", **options}
    return Tokenizer.from_config(config, name="tiny.test").eval()


@pytest.fixture
def pictures():
    torch.manual_seed(3)
    return [torch.rand(3, 32, 32 + 16 * (k % 2)) * 2 - 1 for k in range(6)]


def test_tokens_of_a_fitted_head_rebuild_what_the_continuous_one_did(pictures, tmp_path):
    tokenizer = continuous(channels=5)
    x = pictures[0][None]
    with pytest.raises(ConfigError):
        tokenizer.encode(x)
    before = {key: value.clone() for key, value in tokenizer.state_dict().items()}
    new = tokenizers_vq.fit(tokenizer, pictures, BRIDGE)
    assert all(torch.equal(before[key], value) for key, value in tokenizer.state_dict().items())
    assert new.name == "tiny.test-token_bridge"
    assert new.quantizer.codebook_sizes == (256,) * 5
    with torch.no_grad():
        smooth = tokenizer(x)
        rough = new(x)
    error = (rough.quantized.z_q - smooth.quantized.z_q).square().mean()
    assert float(error) < 1e-3 * float(smooth.quantized.z_q.var())
    again = tokenizers_vq.load(new.save(tmp_path / "fitted"))
    codes = again.encode(x)
    assert torch.equal(again.decode(codes), new.decode(new.encode(x).indices))
    assert codes.indices.shape[-1] == 5


@pytest.mark.parametrize("quantizer", [BRIDGE, {"name": "rotated", "inner": BRIDGE}])
def test_heads_without_maps(quantizer, pictures):
    tokenizer = continuous()
    new = tokenizers_vq.fit(tokenizer, pictures, quantizer)
    z = tokenizer.encoder(pictures[0][None]).detach()
    error = (new.quantizer(z).z_q - z).square().mean()
    assert float(error) < 1e-3 * float(z.var())


def test_a_head_on_whole_grids(pictures):
    tokenizer = continuous()
    z = tokenizer.encoder(pictures[0][None])
    config = {"name": "per_position", "grid": list(z.shape[1:-1]), "tokens": 2, "codebook_size": 4}
    new = tokenizers_vq.fit(tokenizer, pictures[::2], config)
    for picture in pictures[::2]:  # fewer pictures than codes: each is one
        z = tokenizer.encoder(picture[None])
        torch.testing.assert_close(new.quantizer(z).z_q, z, atol=1e-5, rtol=1e-5)
    with pytest.raises(DataError) as error:
        tokenizers_vq.fit(tokenizer, pictures, config)
    assert str(error.value) == (
        "fit: expected signals of one size for a head on whole grids; got 2 sizes of latents. "
        "Crop them."
    )


def test_mistakes_are_named(pictures):
    with pytest.raises(ConfigError) as error:
        tokenizers_vq.fit(continuous(), pictures, {"name": "fsq", "levels": [3, 3]})
    assert str(error.value) == (
        "fit: expected a quantizer that is fitted to latents; got 'fsq'. "
        "Choose token_bridge or per_position, or train this one."
    )
    with pytest.raises(ConfigError) as error:
        tokenizers_vq.fit(continuous(channels=5), pictures, {**BRIDGE, "channels": 4})
    assert str(error.value) == (
        "fit: expected a quantizer on the 5 channels of Gaussian; got TokenBridge on 4. Set its "
        "channels, or train the autoencoder without maps to a narrower bottleneck."
    )
    with pytest.raises(DataError) as error:
        tokenizers_vq.fit(continuous(), [], BRIDGE)
    assert str(error.value) == "fit: expected at least one signal; got none. Check the data."
    with pytest.raises(ShapeError):
        tokenizers_vq.fit(continuous(), [torch.zeros(1, 32, 32)], BRIDGE)


def test_the_command_writes_a_tokenizer_that_loads(tmp_path, capsys):
    hub.save(continuous(channels=16), tmp_path / "continuous")
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for k in range(3):
        pixels = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{k}.png")
    words = ["fit", str(tmp_path / "continuous"), "--quantizer", "token_bridge"]
    words += ["--data", str(tmp_path / "photos"), "-o", str(tmp_path / "tokens")]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == (
        f"{tmp_path / 'tokens'}: tiny.test-token_bridge, 96.00 bits per position, "
        "fitted to 3 items of photos\n"
    )
    tokenizer = tokenizers_vq.load(tmp_path / "tokens")
    assert tokenizer.config["quantizer"] == read_config("quantizer", "token_bridge")
    assert tokenizer.encode(torch.zeros(1, 3, 32, 32)).indices.shape[-1] == 16
