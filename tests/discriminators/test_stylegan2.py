"""The published size, and its special layers by hand."""

import math

import pytest
import torch

from tokenizers_vq.discriminators.stylegan2 import Layer, StyleGAN2, deviation
from tokenizers_vq.errors import ConfigError, ShapeError


def test_the_published_parameter_count():
    with torch.device("meta"):
        critic = StyleGAN2(size=256)
    assert sum(p.numel() for p in critic.parameters()) == 28_864_129


def test_there_is_one_logit_per_image():
    critic = StyleGAN2(size=16, base=128, width=16)
    x = torch.rand(3, 3, 16, 16)
    assert critic(x).shape == (3, 1, 1, 1)
    critic(x).sum().backward()
    assert all(p.grad is not None for p in critic.parameters())


def test_deviation_by_hand():
    x = torch.zeros(4, 1, 2, 2)
    x[2] = 2.0  # items 0 and 2 are compared, 1 and 3 are
    out = deviation(x, 2)
    assert out.shape == (4, 1, 2, 2)
    assert out[:, 0, 0, 0].tolist() == pytest.approx([1.0, 1e-4, 1.0, 1e-4])


def test_groups_shrink_to_a_divisor_of_the_batch():
    assert deviation(torch.rand(6, 2, 2, 2), 4).shape == (6, 1, 2, 2)


def test_a_layer_is_scaled_at_run_time():
    layer = Layer(4, 1, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    out = layer(torch.ones(1, 4, 2, 2), gain=0.5)
    assert out.flatten().tolist() == pytest.approx([0.5 * math.sqrt(2) * 4 / 2] * 4)
    assert Layer(4, 4, 3, down=True)(torch.ones(1, 4, 8, 8)).shape == (1, 4, 4, 4)


def test_other_sizes_are_refused():
    with pytest.raises(ConfigError) as error:
        StyleGAN2(size=100)
    assert str(error.value) == (
        "StyleGAN2: expected a size of a power of two from 8; got 100. "
        "Set discriminator.size to the pixels per side of the training images."
    )
    with pytest.raises(ShapeError) as error:
        StyleGAN2(size=8, base=64, width=8)(torch.rand(1, 3, 16, 16))
    assert str(error.value) == (
        "StyleGAN2: expected images of 8 x 8 pixels; got 16 x 16. "
        "Set discriminator.size, or crop the images."
    )
