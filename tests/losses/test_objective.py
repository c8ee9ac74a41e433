"""The objective adds what it should, when it should, and refuses what it cannot."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.losses import objective as module
from tokenizers_vq.losses.adversarial import Adversarial
from tokenizers_vq.losses.objective import Objective
from tokenizers_vq.types import Quantized, Reconstruction

X = torch.zeros(2, 3, 4, 4)


def reconstruction(value=0.5):
    x_hat = torch.full_like(X, value).requires_grad_()
    terms = {"commitment": torch.tensor(3.0)}
    quantized = Quantized(X, torch.zeros(2, 1, 1, 1).long(), torch.tensor(0.75), terms)
    return Reconstruction(x_hat, X, quantized)


class Critic(nn.Module):
    """A logit per pixel: the mean over channels times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.weight * x.mean(1, keepdim=True)


GAN = {"recon/l1": 1.0, "quantizer/loss": 1.0, "adv/gen": 0.1, "adv/disc": 1.0}


def gan(weights=None, **options):
    return Objective(
        GAN | (weights or {}), discriminator=Critic(), adversarial=Adversarial(**options)
    )


def test_total_is_the_weighted_sum():
    objective = Objective({"recon": {"l1": 2.0, "l2": 4.0}, "quantizer": {"loss": 0.5}})
    terms = objective.generator_terms(X, reconstruction(), step=0)
    assert {name: term.item() for name, term in terms.items()} == {
        "recon/l1": 0.5,
        "recon/l2": 0.25,
        "quantizer/commitment": 3.0,
        "quantizer/loss": 0.75,
    }
    assert objective.total(terms, step=0).item() == pytest.approx(2 * 0.5 + 4 * 0.25 + 0.5 * 0.75)


def test_weights_follow_their_schedule():
    ramp = {"from": 0.0, "to": 1.0, "over": 10}
    objective = Objective({"recon": {"l1": ramp}, "quantizer/loss": 0.0})
    terms = objective.generator_terms(X, reconstruction(), step=5)
    assert objective.total(terms, step=5).item() == pytest.approx(0.25)


def test_a_weight_of_null_takes_the_term_out():
    objective = Objective({"recon": {"l1": 1.0, "l2": None}, "quantizer/loss": 1.0})
    assert "recon/l2" not in objective.generator_terms(X, reconstruction(), step=0)


def test_further_terms_come_by_name():
    objective = Objective(
        {"recon/mean": 1.0, "quantizer/loss": 0.0},
        extra={"recon/mean": lambda x, y: (y - x).mean()},
    )
    terms = objective.generator_terms(X, reconstruction(), step=0)
    assert objective.total(terms, step=0).item() == pytest.approx(0.5)


def test_both_sides_start_at_their_steps():
    objective = gan(start=20, discriminator_start=10)
    seen = {}
    for step in (0, 10, 20):
        generator = objective.generator_terms(X, reconstruction(), step)
        critic = objective.discriminator_terms(X, reconstruction().x_hat, step)
        objective.total(generator, step)
        seen[step] = ("adv/gen" in generator, sorted(critic))
    assert seen == {0: (False, []), 10: (False, ["adv/disc"]), 20: (True, ["adv/disc"])}


def test_the_generator_term_leaves_the_discriminator_alone():
    objective, made = gan(), reconstruction()
    terms = objective.generator_terms(X, made, step=0)
    assert terms["adv/gen"].item() == pytest.approx(-1.0)  # -2 x 0.5
    objective.total(terms, step=0).backward()
    assert objective.discriminator.weight.grad is None
    assert objective.discriminator.weight.requires_grad
    assert made.x_hat.grad is not None


def test_the_discriminator_terms_leave_the_generator_alone():
    objective, made = gan({"adv/lecam": 0.5, "adv/r1": 10.0}, r1_every=4), reconstruction()
    terms = objective.discriminator_terms(X, made.x_hat, step=8)
    assert sorted(terms) == ["adv/disc", "adv/lecam", "adv/r1"]
    # D = 2 x mean over 3 channels: gradient 2/3 at each of 48 samples; half of its square, 4 times
    assert terms["adv/r1"].item() == pytest.approx(4 * 0.5 * 48 * (2 / 3) ** 2)
    objective.total(terms, step=8).backward()
    assert made.x_hat.grad is None
    assert objective.discriminator.weight.grad is not None


def test_r1_is_lazy():
    objective = gan({"adv/r1": 10.0}, r1_every=4)
    with_r1 = [
        "adv/r1" in objective.discriminator_terms(X, reconstruction().x_hat, step)
        for step in range(6)
    ]
    assert with_r1 == [True, False, False, False, True, False]


def test_the_adaptive_weight_multiplies_the_generator_term():
    objective = gan({"quantizer/loss": 0.0}, adaptive=True, adaptive_eps=0.0)
    last = torch.tensor(1.0, requires_grad=True)
    made = reconstruction()
    made = Reconstruction(last * made.x_hat.detach(), made.z, made.quantized)
    terms = objective.generator_terms(X, made, step=0)
    total = objective.total(terms, 0, last)
    # d l1 / d last = 0.5, d gen / d last = -1
    assert objective.adaptive.item() == pytest.approx(0.5)
    assert total.item() == pytest.approx(0.5 + 0.1 * 0.5 * -1.0)


def test_the_adaptive_weight_needs_the_last_layer():
    objective = gan(adaptive=True)
    terms = objective.generator_terms(X, reconstruction(), step=0)
    with pytest.raises(ConfigError) as error:
        objective.total(terms, 0)
    assert str(error.value) == (
        "Objective: expected last_layer for the adaptive weight; got None. "
        "Pass tokenizer.decoder.last_layer."
    )


def test_an_absent_lpips_is_left_out(monkeypatch):
    monkeypatch.setattr(module, "load_lpips", lambda **_: None)
    objective = Objective({"recon/l1": 1.0, "perceptual/lpips": 1.0, "quantizer/loss": 1.0})
    terms = objective.generator_terms(X, reconstruction(), step=0)
    assert "perceptual/lpips" not in terms
    assert objective.total(terms, step=0).item() == pytest.approx(1.25)


def test_lpips_is_used_and_stays_outside_the_module_tree(monkeypatch):
    class Fake:
        def __call__(self, x, x_hat):
            return x_hat.mean()

    seen = {}
    monkeypatch.setattr(module, "load_lpips", lambda **options: seen.update(options) or Fake())
    objective = Objective({"perceptual/lpips": 2.0, "quantizer/loss": 0.0}, lpips={"net": "alex"})
    terms = objective.generator_terms(X, reconstruction(), step=0)
    assert objective.total(terms, step=0).item() == pytest.approx(1.0)
    assert seen == {"net": "alex"}
    assert list(objective.modules()) == [objective, objective.heads]
    assert objective.state_dict() == {}


def test_terms_of_the_model_are_weighted_or_only_logged():
    objective = Objective({"recon/l1": 1.0, "quantizer/loss": 0.0, "model": {"halt": 0.5}})
    made = replace(reconstruction(), terms={"halt": torch.tensor(4.0), "seen": torch.tensor(9.0)})
    terms = objective.generator_terms(X, made, step=0)
    assert objective.total(terms, step=0).item() == pytest.approx(0.5 + 2.0)
    with pytest.raises(ConfigError, match=r"^Objective: expected the terms .*; got none"):
        objective.total({k: v for k, v in terms.items() if k != "model/halt"}, step=0)


def test_consistency_compares_logits_of_augmented_signals(monkeypatch):
    monkeypatch.setattr(module, "augment", lambda x, names: x + len(names))
    objective = gan({"adv/bcr": 1.0})
    terms = objective.discriminator_terms(X, reconstruction().x_hat, step=0)
    # logits are 2 x the mean over channels; all three augmentations add 3 to each sample
    assert terms["adv/bcr"].item() == pytest.approx(2 * (2 * 3.0) ** 2)


def test_the_discriminator_may_rest_between_its_steps():
    objective = gan(discriminator_every=3)
    learns = [
        bool(objective.discriminator_terms(X, reconstruction().x_hat, step)) for step in range(5)
    ]
    assert learns == [True, False, False, True, False]


def test_both_sides_see_augmented_signals(monkeypatch):
    monkeypatch.setattr(module, "augment", lambda x, names: x + 10 * len(names))
    objective = gan(augment=("color",))
    assert objective.generator_terms(X, reconstruction(), 0)["adv/gen"].item() == -2 * 10.5
    critic = objective.discriminator_terms(X, reconstruction().x_hat, 0)["adv/disc"].item()
    assert critic == pytest.approx(0.5 * (0 + 1 + 21.0))


def test_absent_teachers_and_classifiers_are_left_out(monkeypatch):
    monkeypatch.setattr(module, "load_logits", lambda *_, **__: None)
    monkeypatch.setattr(module, "load_features", lambda **_: None)
    objective = Objective(
        {"recon/l1": 1.0, "perceptual/resnet50": 1.0, "features/clip": 1.0, "quantizer/loss": 1.0},
        features={"clip": {"model": "vit", "channels": [0, 4]}},
    )
    terms = objective.generator_terms(X, reconstruction(), step=0)
    assert objective.total(terms, step=0).item() == pytest.approx(1.25)


def test_unknown_terms_are_refused():
    objective = Objective({"recon/l1": 1.0, "quantizer/loss": 1.0})
    terms = objective.generator_terms(X, reconstruction(), step=0)
    with pytest.raises(ConfigError) as error:
        objective.total({**terms, "recon/l3": torch.zeros(())}, step=0)
    assert str(error.value) == (
        "weight of a loss term: there is no 'recon/l3'; choose one of quantizer/loss, recon/l1."
    )


def test_missing_terms_are_refused():
    objective = Objective({"recon/l1": 1.0, "quantizer/loss": 1.0})
    with pytest.raises(ConfigError) as error:
        objective.total({"recon/l1": torch.zeros(())}, step=0)
    assert str(error.value) == (
        "Objective: expected the terms recon/l1, quantizer/loss; got none called quantizer/loss. "
        "Compute it, or take its weight out."
    )


def test_the_quantizer_s_loss_needs_a_weight():
    objective = Objective({"recon/l1": 1.0})
    terms = objective.generator_terms(X, reconstruction(), step=0)
    with pytest.raises(ConfigError, match=r"^weight of a loss term: there is no 'quantizer/loss';"):
        objective.total(terms, step=0)


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError) as error:
        Objective({"recon": {"l3": 1.0}})
    assert str(error.value) == (
        "loss term: there is no 'recon/l3'; choose one of adv/bcr, adv/disc, adv/features, "
        "adv/gen, adv/lecam, adv/r1, perceptual/convnext_small, perceptual/lpips, "
        "perceptual/resnet50, quantizer/loss, recon/l1, recon/l2, recon/mix, recon/smooth_l1."
    )


def test_the_quantizer_weights_its_own_terms():
    with pytest.raises(ConfigError) as error:
        Objective({"quantizer": {"entropy": 0.1}})
    assert str(error.value) == (
        "Objective: expected quantizer/loss; got a weight of quantizer/entropy. "
        "The quantizer weights its own terms: set quantizer.entropy_weight."
    )


@pytest.mark.parametrize(
    ("weights", "critic"),
    [({"adv/gen": 1.0, "adv/disc": 1.0}, None), ({"adv/disc": 1.0}, Critic())],
)
def test_adversarial_terms_and_discriminator_go_together(weights, critic):
    with pytest.raises(
        ConfigError,
        match=r"^Objective: expected adv/gen and adv/disc together with a discriminator;",
    ):
        Objective(weights, discriminator=critic)
