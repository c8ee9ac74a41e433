"""What every causal video network must do."""

import torch

from tokenizers_vq.configs import read_config
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

VIDEO = SignalSpec("video")


def pair_of(name, **options):
    """The encoder and decoder of a config, with other norms and gains than at the beginning."""
    torch.manual_seed(0)
    config = read_config("backbone", name)
    parts = [
        build(side, {**config[side], **options}, dim=config["dim"], signal=VIDEO).eval()
        for side in ("encoder", "decoder")
    ]
    for part in parts:
        for parameter in part.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape)
    return parts


def on_meta(name):
    """The encoder and decoder of a config, without memory."""
    config = read_config("backbone", name)
    with torch.device("meta"):
        return [
            build(side, config[side], dim=config["dim"], signal=VIDEO)
            for side in ("encoder", "decoder")
        ]


@torch.no_grad()
def check_causality(encoder, decoder):
    """A change of frame 9 of 17 changes latents and frames from there on only, at 4 x 8 x 8."""
    x = torch.rand(1, 3, 17, 16, 16) * 2 - 1
    other = x.clone()
    other[:, :, 9:] = torch.rand(1, 3, 8, 16, 16) * 2 - 1
    z, changed = encoder(x), encoder(other)
    assert z.shape == (1, 5, 2, 2, encoder.dim)
    assert torch.equal(changed[:, :3], z[:, :3])
    assert not torch.equal(changed[:, 3], z[:, 3])
    y, x_hat = decoder(changed), decoder(z)
    assert x_hat.shape == x.shape
    assert torch.equal(y[:, :, :9], x_hat[:, :, :9])
    torch.testing.assert_close(encoder(x[:, :, :1]), z[:, :1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoder(z[:, :1]), x_hat[:, :, :1], rtol=1e-4, atol=1e-5)
