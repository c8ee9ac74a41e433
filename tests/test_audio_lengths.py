"""Every published audio codec, as narrow as it goes: any length comes back, padding never shows."""

import pytest
import torch

from tokenizers_vq.configs import config_names, read_config
from tokenizers_vq.tokenizer import Tokenizer

SIZES = {  # options that make a network large, as small as they can be
    "inner": 8, "hidden": 8, "depth": 1, "layers": 1, "adapters": 1, "heads": 2, "mels": 20,
    "widths": [16, 16], "depths": [1], "vocos": [8, 8, 1], "pool_after": 1,
}  # fmt: skip
# latent width, width of the encoder, width of the decoder
WIDTHS = {"seanet": (4, 4, 4), "dac": (64, 4, 64), "mimi": (4, 2, 2), "taae": (6, 0, 0),
          "xy": (4, 4, 4), "whisper": (8, 8, 8), "spectrum": (4, 8, 8)}  # fmt: skip
NARROW = {"taae": {"transformer": {"layers": 1, "heads": 2, "hidden": 8, "rotary": 4}}}
RATES = {"name": "temporal_scales", "strides": [4, 2, 1]}


def codecs():
    """The audio configs, of published networks and of tests."""
    names = config_names("backbone")
    return [name for name in names if read_config("backbone", name)["signal"]["kind"] == "audio"]


def narrow(value, width):
    """A part of a config with small sizes instead of the published ones."""
    if not isinstance(value, dict):
        return value
    small = {key: SIZES.get(key, narrow(part, width)) for key, part in value.items()}
    return {**small, "width": width} if "width" in value else small


def codec(name):
    config = read_config("backbone", name)
    kind = config["encoder"]["name"]
    dim, *widths = WIDTHS[kind]
    for side, width in zip(("encoder", "decoder"), widths, strict=True):
        config[side] = narrow(config[side], width) | NARROW.get(kind, {})
        if config[side]["name"] == "absent":
            config[side] = {"name": "absent", "stride": config[side]["stride"]}
    if "segments" in config["encoder"]:
        config["encoder"]["segments"] |= {"length": 800, "overlap": 8}
    if "windows" in config["encoder"]:
        (step,) = config["decoder"]["stride"]
        given = config["encoder"]["windows"]
        shorter = {"length": 4, "step": 2, "before": 1} if "before" in given else {"length": 2}
        config["encoder"]["windows"] = {"step": 2 * step} | {
            k: v * step for k, v in shorter.items()
        }
    levels = {"repeat": 3, "of": {"name": "vq", "codebook_size": 16}}
    head = {"name": "residual", "stages": levels}
    if "snac" in name:
        head = {**RATES, "inner": levels}
    torch.manual_seed(0)
    return Tokenizer.from_config({**config, "dim": dim, "quantizer": head}).eval()


def sound(tok, *shape):
    return torch.rand(shape[0], tok.signal.channels, shape[1]) - 0.5


@torch.no_grad()
@pytest.mark.parametrize("name", codecs())
def test_every_length_comes_back(name):
    tok = codec(name)
    hop = tok.stride[0]
    near = {hop - 8, hop - 1, hop, hop + 1, 2 * hop - 7, 2 * hop}
    for length in sorted({1, 2, *near, 5 * hop + hop // 3}):
        x = sound(tok, 1, length)
        codes = tok.encode(x)
        assert codes.indices.shape[1:-1] == tok.quantizer.index_grid(tok.encoder.grid((length,)))
        assert tok.encoder.grid((length,))[0] >= max(1, length // hop)
        if tok.decodable:
            x_hat = tok.decode(codes)
            assert x_hat.shape == x.shape
            assert x_hat.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 400, 799, 800, 1000, 2500])
def test_segments_of_heads_with_more_tokens_than_latents(length):
    config = read_config("backbone", "tiny_seanet_stereo")
    config["encoder"]["segments"] |= {"length": 800, "overlap": 8}
    head = read_config("quantizer", "vvq")
    torch.manual_seed(0)
    tok = Tokenizer.from_config({**config, "quantizer": head}).eval()
    x = sound(tok, 1, length)
    codes = tok.encode(x)
    y = tok.decode(codes)
    assert y.shape == x.shape
    assert torch.equal(tok.decompress(tok.compress(x)), y)
    if length <= 800 - 8:
        alone = tok.encoder(x / tok.encoder.segments.scale(x)[:, None, None])
        assert torch.equal(codes.indices, tok.quantizer.encode(alone))


@torch.no_grad()
@pytest.mark.parametrize("name", codecs())
def test_padding_in_a_batch_never_changes_an_item(name):
    tok = codec(name)
    hop = tok.stride[0]
    lengths = (1, 3 * hop, hop + 1)
    x = sound(tok, 3, 3 * hop + 5)
    codes = tok.encode(x, lengths=lengths)
    for item, n in enumerate(lengths):
        alone = tok.encode(x[item : item + 1, :, :n]).indices[0]
        assert torch.equal(codes.indices[item, : len(alone)], alone)
        assert (codes.indices[item, len(alone) :] == -1).all()
        x[item, :, n:] = 0.5  # what is behind an end
    assert torch.equal(tok.encode(x, lengths=lengths).indices, codes.indices)
    if tok.decodable:
        x_hat = tok.decode(codes)
        assert x_hat.shape == x.shape
        assert not any(x_hat[item, :, n:].any() for item, n in enumerate(lengths))
