"""Ensembles: built from plain data, weighted, with feature matching in the objective."""

import pytest
import torch

from tokenizers_vq import registry
from tokenizers_vq.discriminators.ensemble import Ensemble
from tokenizers_vq.discriminators.patchgan import PatchGAN
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.losses.adversarial import Adversarial
from tokenizers_vq.losses.objective import Objective
from tokenizers_vq.types import Quantized, Reconstruction

CONFIG = {
    "name": "ensemble",
    "parts": [
        {"name": "mpd", "periods": [2, 3], "width": 2, "average": True},
        {"name": "ms_stft", "n_ffts": [64], "width": 2},
    ],
    "weights": [1.0, 0.1],
}


def test_it_is_built_from_plain_data():
    critic = registry.build("discriminator", CONFIG)
    x = torch.randn(2, 1, 400)
    judged = critic.judge(x)
    assert [one.weight for one in judged] == [0.5, 0.5, 0.1]
    assert critic(x).shape == (2, 1, sum(one.logits[0].numel() for one in judged))
    with pytest.raises(ShapeError, match="MSSTFT: expected at least 64 samples; got 60"):
        critic.check_signal(x[..., :60])


def test_the_objective_weighs_every_judge():
    critic = registry.build("discriminator", CONFIG)
    weights = {"recon/l1": 1.0, "adv/gen": 1.0, "adv/features": 2.0, "adv/disc": 1.0}
    weights["quantizer/loss"] = 1.0
    objective = Objective(weights, discriminator=critic, adversarial=Adversarial(loss="lsgan"))
    x, x_hat = torch.randn(2, 1, 400), torch.randn(2, 1, 400, requires_grad=True)
    z = torch.zeros(2, 1, 1)
    quantized = Quantized(z, z.long(), torch.zeros(()), {})
    terms = objective.generator_terms(x, Reconstruction(x_hat, z, quantized), 0)
    real, fake = critic.judge(x), critic.judge(x_hat)
    wanted = sum(one.weight * (one.logits - 1).square().mean() / 2 for one in fake)
    torch.testing.assert_close(terms["adv/gen"], wanted)
    objective.total(terms, 0).backward()
    assert x_hat.grad.isfinite().all()
    assert all(p.grad is None for p in critic.parameters())
    found = objective.discriminator_terms(x, x_hat, 0)["adv/disc"]
    halves = [
        one.weight * ((one.logits - 1).square().mean() + other.logits.square().mean()) / 2
        for one, other in zip(real, fake, strict=True)
    ]
    torch.testing.assert_close(found, sum(halves))


@pytest.mark.parametrize(
    ("parts", "weights", "got"),
    [
        ([], [], "no part and 0 weights"),
        ([PatchGAN(width=8)], [], "PatchGAN and 0 weights"),
    ],
)
def test_errors(parts, weights, got):
    with pytest.raises(ConfigError) as error:
        Ensemble(parts, weights)
    assert str(error.value) == (
        "Ensemble: expected discriminators of sound and a weight for each, or none; got "
        f"{got}. Correct the discriminator config."
    )
