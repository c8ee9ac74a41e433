"""The transformer autoencoder of stable-codec: its size, its patches, its mistakes."""

import pytest
import torch

from tokenizers_vq.backbones.taae import TAAEEncoder
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

SIGNAL = SignalSpec("audio", 1, sample_rate=16000)


def test_the_paper_size_has_about_as_many_weights_as_the_paper_says():
    config = read_config("backbone", "taae_16k")
    with torch.device("meta"):
        parts = [build(side, config[side], dim=6, signal=SIGNAL) for side in ("encoder", "decoder")]
    assert round(sum(p.numel() for part in parts for p in part.parameters()) / 1e6) == 953


@torch.no_grad()
def test_a_patch_of_samples_is_one_position():
    small = {"heads": 1, "rotary": 2, "hidden": 8, "past": 0, "future": 0}
    encoder = TAAEEncoder(3, SIGNAL, 4, (4, 4), (2,), (1,), small, norm="none")
    first = encoder.layers[0].conv
    first.weight.zero_()
    first.bias.zero_()
    first.weight[:, :, 3] = torch.eye(4)
    seen = []
    encoder.layers[0].register_forward_hook(lambda _, __, y: seen.append(y))
    encoder(torch.arange(16.0).view(1, 1, 16) / 16)
    assert torch.equal(seen[0][0].mT, torch.arange(16.0).view(4, 4) / 16)


@torch.no_grad()
def test_frames_are_filled_with_zeros():
    config = read_config("backbone", "tiny_taae")
    encoder = build("encoder", config["encoder"], dim=6, signal=SIGNAL)
    framed = encoder.frame(torch.ones(1, 1, 321))
    assert framed.shape[-1] == 640
    assert framed.sum() == 321


def test_blocks_have_a_stride_a_depth_and_a_width():
    with pytest.raises(ConfigError) as caught:
        TAAEEncoder(6, SIGNAL, widths=(8, 8), strides=(2, 2), depths=(1,))
    assert str(caught.value) == (
        "taae: expected a stride and a depth per block and one width more; got 2 strides, 1 depths "
        "and 2 widths. Correct the backbone config."
    )
