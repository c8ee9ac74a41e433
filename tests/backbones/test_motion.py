"""Sizes of the published networks, standardised channels, and the pass that trains them."""

import pytest
import torch

from tokenizers_vq import Tokenizer
from tokenizers_vq.configs import read_config
from tokenizers_vq.data.synthetic_motion import SyntheticMotion
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec


def tokenizer(**options):
    torch.manual_seed(0)
    config = read_config("backbone", "tiny_motion")
    for side in ("encoder", "decoder"):
        config[side] = {**config[side], **options}
    return Tokenizer.from_config({**config, "quantizer": {"name": "fsq", "levels": [8, 5, 5]}})


def test_the_published_size():
    config = read_config("backbone", "motion_t2m")
    shared = {"dim": config["dim"], "signal": SignalSpec(**config["signal"])}
    with torch.device("meta"):
        parts = [build(side, config[side], **shared) for side in ("encoder", "decoder")]
    count = sum(p.numel() for part in parts for p in part.parameters())
    assert count == 19_698_951 - 512 * 512  # T2M-GPT's tensors less its codebook


def test_features_come_back_in_their_own_units():
    tok = tokenizer().eval()
    x = SyntheticMotion(n=1, frames=22)[0][None]
    codes = tok.encode(x)
    assert codes.indices.shape == (1, 6, 1)
    mean, std = x[0].mean(1), torch.full((263,), 0.1)
    before = tok.decoder.standardized(tok.quantizer.decode(codes.indices))
    for part in (tok.encoder, tok.decoder):
        part.standardize.fit(mean, std)
    expected = before * 0.1 + mean[:, None]
    torch.testing.assert_close(tok.decode(codes, raw=True), expected[..., :22])


def test_the_training_pass_is_the_forward_on_another_scale():
    tok = tokenizer()
    x = torch.stack(list(SyntheticMotion(n=2, frames=16)))
    for part in (tok.encoder, tok.decoder):
        part.standardize.fit(x.mean((0, 2)), x.std((0, 2)))
    made, plain = tok.decoder.training_pass(tok, x, 0), tok(x)
    torch.testing.assert_close(tok.decoder.standardize.undo(made.x_hat), plain.x_hat)
    torch.testing.assert_close(tok.decoder.standardize.undo(made.target), x, atol=1e-5, rtol=1e-4)
    error = (made.x_hat - made.target)[:, 4:67].abs()
    expected = torch.where(error < 1, error.square() / 2, error - 0.5).mean()
    torch.testing.assert_close(made.terms["position"], expected)


def test_mistakes_are_named():
    with pytest.raises(ConfigError) as error:
        tokenizer(groups=[1, 2])
    assert str(error.value) == (
        "Standardize: expected groups of 263 channels together; got 3. Correct groups in the "
        "backbone config."
    )
    with pytest.raises(ConfigError, match="expected width, levels and depth of 1 or more; got 64"):
        tokenizer(levels=0)
