"""PatchGAN: published size, receptive field, independence of images, errors."""

import pytest
import torch

from tokenizers_vq.discriminators.patchgan import PatchGAN
from tokenizers_vq.errors import ConfigError, ShapeError


def test_it_has_the_published_number_of_parameters():
    assert sum(parameter.numel() for parameter in PatchGAN().parameters()) == 2_765_633


def test_a_logit_sees_seventy_pixels():
    critic = PatchGAN(width=8, norm="none").eval()
    x = torch.zeros(1, 3, 256, 256, requires_grad=True)
    logits = critic(x)
    assert logits.shape == (1, 1, 30, 30)
    logits[0, 0, 15, 15].backward()
    seen = x.grad.abs().sum((0, 1))
    assert (seen.sum(0) > 0).sum() == 70
    assert (seen.sum(1) > 0).sum() == 70


def test_weights_start_small():
    torch.manual_seed(0)
    critic = PatchGAN(width=64)
    assert critic.main[5].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert critic.main[6].weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert critic.main[6].weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not critic.main[6].bias.any()


@pytest.mark.parametrize("norm", ["group", "none"])
def test_without_batch_normalisation_images_are_independent(norm):
    critic = PatchGAN(width=8, norm=norm)
    x = torch.randn(4, 3, 32, 32)
    assert torch.allclose(critic(x)[:2], critic(x[:2]), atol=1e-6)


@pytest.mark.parametrize(("layers", "smallest"), [(1, 6), (2, 12), (3, 24)])
def test_the_smallest_image_has_one_logit(layers, smallest):
    critic = PatchGAN(width=8, layers=layers)
    assert critic(torch.zeros(2, 3, smallest, smallest)).shape == (2, 1, 1, 1)
    with pytest.raises(ShapeError) as error:
        critic(torch.zeros(2, 3, smallest - 1, 99))
    assert str(error.value) == (
        f"PatchGAN: expected images of at least {smallest} x {smallest} pixels; "
        f"got {smallest - 1} x 99. Use larger images, or fewer layers."
    )


def test_other_channels_are_refused():
    with pytest.raises(ShapeError) as error:
        PatchGAN(width=8)(torch.zeros(1, 1, 32, 32))
    assert str(error.value) == (
        "PatchGAN: expected shape (B, 3, H, W); got (1, 1, 32, 32). Images are channels first."
    )


def test_options_out_of_range_are_refused():
    with pytest.raises(ConfigError) as error:
        PatchGAN(norm="layer")
    assert str(error.value) == (
        "PatchGAN norm: there is no 'layer'; choose one of batch, group, none."
    )
    with pytest.raises(ConfigError) as error:
        PatchGAN(width=12, norm="group")
    assert str(error.value) == (
        "PatchGAN: expected at least 1 layer and a width that is a multiple of 8; "
        "got layers 3, width 12. Correct the discriminator config."
    )
