"""Learning rate by step, weight decay by kind of parameter."""

import pytest
import torch
from torch import nn

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.training.optim import Recipe


def test_the_learning_rate_warms_up_then_follows_a_cosine_to_its_floor():
    recipe = Recipe(warmup_steps=3, floor=0.2)
    factors = [recipe.factor(step, total=103) for step in (0, 1, 2, 3, 53, 103, 500)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.6, 0.2, 0.2])


def test_a_floor_of_one_keeps_it_constant_without_an_end():
    assert Recipe(floor=1).factor(10**6, total=None) == 1.0


def test_drops_multiply_from_their_steps_on():
    recipe = Recipe(floor=1, drops={10: 0.1, "20": 0.5})
    assert [recipe.factor(step, None) for step in (9, 10, 20)] == pytest.approx([1.0, 0.1, 0.05])


def test_a_falling_rate_needs_an_end():
    with pytest.raises(ConfigError) as error:
        Recipe().factor(5, None)
    assert str(error.value) == (
        "optim: expected trainer.max_steps for floor 0.1; got a run without end. "
        "Set trainer.max_steps, or optim.floor=1."
    )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.codebook = nn.Parameter(torch.zeros(4, 2))
        self.frozen = nn.Parameter(torch.zeros(4, 2), requires_grad=False)


def test_norms_biases_and_tables_do_not_decay():
    net = Net()
    decayed, spared = Recipe(weight_decay=0.3).build(net).param_groups
    assert decayed["weight_decay"] == 0.3
    assert [id(p) for p in decayed["params"]] == [id(net.linear.weight)]
    assert spared["weight_decay"] == 0.0
    expected = [net.codebook, net.linear.bias, net.norm.weight, net.norm.bias]
    assert {id(p) for p in spared["params"]} == {id(p) for p in expected}


def test_muon_steps_equally_far_in_all_directions_of_a_matrix_and_adamw_moves_the_rest():
    net = nn.Module()
    net.linear = nn.Linear(8, 8)
    net.codebook = nn.Parameter(torch.zeros(8, 8))
    before = net.linear.weight.detach().clone()
    optimizer = Recipe(optimizer="muon", lr=0.3, weight_decay=0.0).build(net)
    slopes = torch.linspace(1, 9, 8)
    (net.linear.weight.diagonal() @ slopes + net.linear.bias.sum() + net.codebook.sum()).backward()
    optimizer.step()
    moved = torch.linalg.svdvals(before - net.linear.weight.detach())
    # a step of rms .2 lr has singular values of .2 lr sqrt(8); five Newton-Schulz rounds are rough
    assert moved.tolist() == pytest.approx([0.3 * 0.2 * 8**0.5] * 8, rel=0.35)
    torch.testing.assert_close(net.codebook.detach(), torch.full((8, 8), -0.1))  # a third of lr


def test_the_discriminator_may_differ():
    recipe = Recipe(lr=1e-4, discriminator={"lr": 1e-5, "betas": [0.0, 0.9]})
    optimizer = recipe.build(Net(), discriminator=True)
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.9)
    assert recipe.set_lr(optimizer, 0, total=100) == pytest.approx(1e-5)


def test_adam_is_there_too():
    assert type(Recipe(optimizer="adam").build(Net())) is torch.optim.Adam


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError) as error:
        Recipe(optimizer="sgd")
    assert str(error.value) == "optimizer: there is no 'sgd'; choose one of adam, adamw, muon."
    with pytest.raises(ConfigError) as error:
        Recipe(discriminator={"eps": 1})
    assert str(error.value) == (
        "discriminator's optimizer option: there is no 'eps'; "
        "choose one of betas, lr, weight_decay."
    )
    with pytest.raises(ConfigError, match=r"^optim: expected lr and clip above 0, floor from 0"):
        Recipe(accumulate=0)
    with pytest.raises(ConfigError) as error:
        Recipe().build(nn.Linear(1, 1).requires_grad_(False))
    assert str(error.value) == (
        "optim: expected trainable parameters; got none in Linear. Unfreeze a part of it."
    )


def test_warm_up_may_begin_at_a_share():
    recipe = Recipe(warmup_steps=3, warmup_from=0.2, floor=1)
    factors = [recipe.factor(step, None) for step in (0, 1, 2, 3)]
    assert factors == pytest.approx([0.4, 0.6, 0.8, 1.0])
    with pytest.raises(ConfigError) as error:
        Recipe(warmup_from=2)
    assert str(error.value) == (
        "optim: expected warmup_from from 0 to 1; got 2. It is a share of lr."
    )


def test_words_name_what_does_not_decay():
    net = Net()
    decayed, _ = Recipe(weight_decay=0.3, no_decay=("weight",)).build(net).param_groups
    assert [id(p) for p in decayed["params"]] == [id(net.codebook)]
