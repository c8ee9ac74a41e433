"""A training pass replaces the forward of a step, and brings its own terms and parameters."""

import pytest
import torch
from torch import nn

from tokenizers_vq import registry
from tokenizers_vq.losses.objective import Objective
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.module import TokenizerModule
from tokenizers_vq.training.optim import Recipe
from tokenizers_vq.training.passes import Plain, own_pass
from tokenizers_vq.training.run import run
from tokenizers_vq.types import Reconstruction
from training.conftest import CONFIG, FSQ
from training.test_module import fit, pytestmark  # noqa: F401  # the same harmless warnings


class Twice(nn.Module):
    """Reconstructs two halves of a batch as one, and wants its own parameter small."""

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.own = nn.Parameter(torch.tensor(3.0))
        self.factor = factor
        self.steps = []

    def __call__(self, tokenizer, x, step):
        self.steps.append(step)
        made = tokenizer(x)
        x_hat = torch.cat([made.x_hat, made.x_hat])
        terms = {"own": self.factor * self.own.square(), "seen": torch.tensor(5.0)}
        return Reconstruction(x_hat, made.z, made.quantized, terms, torch.cat([x, x]))


def module_of(training_pass=None, **weights):
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_config(CONFIG | {"quantizer": FSQ})
    objective = Objective({"recon": {"l1": 1.0}, "quantizer": {"loss": 1.0}, **weights})
    return TokenizerModule(
        tokenizer, objective, Recipe(weight_decay=0.0), log_every=1, training_pass=training_pass
    )


def test_a_pass_brings_terms_targets_and_parameters():
    twice = Twice()
    module = module_of(twice, model={"own": 0.5})
    fit(module, 2)
    assert twice.steps == [0, 1]
    assert twice.own.item() < 3.0
    assert module.latest["train/model/own"] < 9.0
    assert module.latest["train/model/seen"] == 5.0  # logged, not weighted
    known = module.latest["train/recon/l1"] + module.latest["train/quantizer/loss"]
    expected = known + 0.5 * module.latest["train/model/own"]
    assert module.latest["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_the_decoders_own_pass_comes_before_the_encoders():
    tokenizer = Tokenizer.from_config(CONFIG | {"quantizer": FSQ})
    assert isinstance(own_pass(tokenizer), Plain)
    tokenizer.encoder.training_pass = first = Twice().__call__
    assert own_pass(tokenizer) is first
    tokenizer.decoder.training_pass = second = Twice().__call__
    assert own_pass(tokenizer) is second


def test_the_plain_pass_is_the_forward():
    tokenizer = Tokenizer.from_config(CONFIG | {"quantizer": FSQ})
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(Plain()(tokenizer, x, 0).x_hat, tokenizer(x).x_hat)


def test_a_config_names_a_pass(small, monkeypatch):
    monkeypatch.setitem(registry.TRAINING_PASSES, "twice", "training.test_passes:Twice")
    words = ["++training_pass={name:twice,factor:2.0}", "++objective.weights.model.own=1.0"]
    result = run(small(*words, "trainer.max_steps=1"))
    assert result.metrics["train/model/own"] == pytest.approx(18.0)
