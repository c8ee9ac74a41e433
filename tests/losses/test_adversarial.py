"""Adversarial losses, regularisers and the adaptive weight against values worked out by hand."""

import math

import pytest
import torch
from torch import nn

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.losses.adversarial import (
    Adversarial,
    LeCAM,
    adaptive_weight,
    consistency,
    r1,
)

# two items of a 1 x 2 map
REAL = torch.tensor([[2.0, 0.5], [-1.0, 0.0]]).view(2, 1, 1, 2)
FAKE = torch.tensor([[1.0, -3.0], [0.0, -0.5]]).view(2, 1, 1, 2)


def softplus(x):
    return math.log1p(math.exp(x))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


REAL_LOGITS, FAKE_LOGITS = [2.0, 0.5, -1.0, 0.0], [1.0, -3.0, 0.0, -0.5]
REAL_ITEMS, FAKE_ITEMS = [1.25, -0.5], [-1.0, -0.25]

DISCRIMINATOR = {
    # relu(1 - real) = 0, 0.5, 2, 1; relu(1 + fake) = 2, 0, 1, 0.5
    "hinge": 0.5 * (3.5 / 4 + 3.5 / 4),
    "vanilla": 0.5
    * (mean(softplus(-r) for r in REAL_LOGITS) + mean(softplus(f) for f in FAKE_LOGITS)),
    # the mean of each item first; real has target 1, fake 0; a sum, not halved
    "non_saturating": mean(softplus(-r) for r in REAL_ITEMS)
    + mean(softplus(f) for f in FAKE_ITEMS),
    # (real - 1)^2 = 1, 0.25, 4, 1; fake^2 = 1, 9, 0, 0.25
    "lsgan": 0.5 * (6.25 / 4 + 10.25 / 4),
}
GENERATOR = {
    "hinge": 6.5 / 4,  # relu(1 - fake) = 0, 4, 1, 1.5
    "linear": 2.5 / 4,
    "softplus": mean(softplus(-f) for f in FAKE_LOGITS),
    "non_saturating": mean(softplus(-f) for f in FAKE_ITEMS),
    # (fake - 1)^2 = 0, 16, 1, 2.25
    "lsgan": 0.5 * 19.25 / 4,
}


@pytest.mark.parametrize("loss", DISCRIMINATOR)
def test_discriminator_losses(loss):
    value = Adversarial(loss=loss).discriminator(REAL, FAKE)
    assert value.item() == pytest.approx(DISCRIMINATOR[loss])


@pytest.mark.parametrize("loss", GENERATOR)
def test_generator_losses(loss):
    assert Adversarial(generator_loss=loss).generator(FAKE).item() == pytest.approx(GENERATOR[loss])


@pytest.mark.parametrize(
    ("loss", "generator_loss"),
    [
        ("hinge", "linear"),
        ("vanilla", "softplus"),
        ("non_saturating", "non_saturating"),
        ("lsgan", "lsgan"),
    ],
)
def test_each_discriminator_loss_has_its_generator_loss(loss, generator_loss):
    assert Adversarial(loss=loss).generator(FAKE).item() == pytest.approx(GENERATOR[generator_loss])


@pytest.mark.parametrize("loss", DISCRIMINATOR)
def test_losses_push_the_right_way(loss):
    play = Adversarial(loss=loss)
    real = torch.full((2, 1, 1, 2), 0.2, requires_grad=True)
    fake = torch.full((2, 1, 1, 2), 0.6, requires_grad=True)
    play.discriminator(real, fake).backward()
    assert real.grad.sum() < 0  # the discriminator raises logits of real signals
    assert fake.grad.sum() > 0
    fake.grad = None
    play.generator(fake).backward()
    assert fake.grad.sum() < 0  # the generator raises those of its own


def test_lecam_by_logits_moves_the_averages_first():
    lecam = LeCAM("logits", decay=0.9)
    penalty = lecam(REAL, FAKE)
    # means 0.375 and -0.625; averages 0.0375 and -0.0625
    assert lecam.real.item() == pytest.approx(0.0375)
    assert lecam.fake.item() == pytest.approx(-0.0625)
    real = mean(max(r + 0.0625, 0) ** 2 for r in REAL_LOGITS)
    fake = mean(max(0.0375 - f, 0) ** 2 for f in FAKE_LOGITS)
    assert penalty.item() == pytest.approx(real + fake)


def test_lecam_by_means_moves_the_averages_last():
    lecam = LeCAM("means", decay=0.9)
    assert lecam(REAL, FAKE).item() == pytest.approx(0.375**2 + 0.625**2)
    assert lecam.real.item() == pytest.approx(0.0375)
    expected = (0.375 + 0.0625) ** 2 + (0.0375 + 0.625) ** 2
    assert lecam(REAL, FAKE).item() == pytest.approx(expected)


def test_r1_is_half_the_squared_gradient_per_item():
    critic = nn.Linear(3, 1)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[1.0, 2.0, -2.0]]))
    penalty = r1(critic, torch.randn(5, 3))
    assert penalty.item() == pytest.approx(0.5 * 9)
    penalty.backward()
    assert critic.weight.grad[0].tolist() == pytest.approx([1.0, 2.0, -2.0])


def test_adaptive_weight_is_the_ratio_of_gradient_norms():
    last = torch.tensor([3.0, 4.0], requires_grad=True)
    main, adversarial = (last * torch.tensor([3.0, 4.0])).sum(), 2 * last[0]
    weight = adaptive_weight(main, adversarial, last, eps=0.5)
    assert weight.item() == pytest.approx(5 / 2.5)
    assert not weight.requires_grad


def test_adaptive_weight_is_bounded_when_the_adversarial_gradient_vanishes():
    last = torch.tensor([1.0], requires_grad=True)
    main, adversarial = last.sum(), 0 * last.sum()
    assert adaptive_weight(main, adversarial, last, eps=0.0, limits=(0.0, 7.0)).item() == 7.0
    assert adaptive_weight(adversarial, main, last, limits=(0.015, 7.0)).item() == pytest.approx(
        0.015
    )


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError) as error:
        Adversarial(loss="hingee")
    assert str(error.value) == (
        "adversarial loss: there is no 'hingee'; "
        "choose one of hinge, lsgan, non_saturating, vanilla."
    )
    with pytest.raises(ConfigError, match=r"^generator loss: there is no 'hinged'; choose one of"):
        Adversarial(generator_loss="hinged")
    with pytest.raises(ConfigError) as error:
        LeCAM("mean")
    assert str(error.value) == "LeCAM form: there is no 'mean'; choose one of logits, means."


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ConfigError) as error:
        Adversarial(start=-1, r1_every=0)
    assert str(error.value) == (
        "Adversarial: expected start steps from 0, r1_every and discriminator_every from 1; got "
        "start -1, discriminator_start 0, r1_every 0, discriminator_every 1. Correct the "
        "objective config."
    )


def test_orders_and_augmentations_are_known_names():
    with pytest.raises(ConfigError) as error:
        Adversarial(order="both")
    assert str(error.value) == (
        "adversarial order: there is no 'both'; choose one of discriminator_first, generator_first."
    )
    with pytest.raises(ConfigError, match=r"^augment: there is no 'blur'; choose one of color, "):
        Adversarial(augment=("blur",))


def test_consistency_is_a_mean_square():
    logits = torch.tensor([1.0, 2.0])
    assert consistency(logits, torch.tensor([1.0, 4.0])).item() == pytest.approx(2.0)
