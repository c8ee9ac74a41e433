"""The balancer against its formula, its averages, its checkpoint, its place in the objective."""

import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.losses.balancer import Balancer
from tokenizers_vq.losses.objective import Objective
from tokenizers_vq.types import Quantized, Reconstruction


def step(balancer, weights, seed, scale=1.0):
    """Return the balanced gradient at ``y`` and the plain gradients."""
    y = torch.randn(3, 1, 8, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    losses = {"a": scale * y.square().mean(), "b": y.abs().mean()}
    plain = {k: torch.autograd.grad(v, y, retain_graph=True)[0] for k, v in losses.items()}
    value = balancer(losses, weights, y)
    value.backward()
    return y.grad, plain, value, losses


def norm(gradient):
    return gradient.flatten(1).norm(dim=1).mean()


def test_the_first_step_has_the_norms_that_the_weights_say():
    weights = {"a": 3.0, "b": 1.0}
    found, plain, value, losses = step(Balancer(), weights, 0, scale=1000.0)
    wanted = 0.75 * plain["a"] / norm(plain["a"]) + 0.25 * plain["b"] / norm(plain["b"])
    torch.testing.assert_close(found, wanted)
    assert value.item() == pytest.approx((3 * losses["a"] + losses["b"]).item())


def test_later_steps_divide_by_the_average_free_of_its_start():
    balancer, weights = Balancer(decay=0.9, norm=2.0), {"a": 1.0, "b": 0.0}
    first, second = step(balancer, weights, 0)[1]["a"], step(balancer, weights, 1)
    average = (0.9 * norm(first) + norm(second[1]["a"])) / 1.9
    torch.testing.assert_close(second[0], 2 * second[1]["a"] / average)


def test_the_averages_are_in_the_checkpoint():
    one, two, weights = Balancer(), Balancer(), {"a": 1.0, "b": 1.0}
    step(one, weights, 0)
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(step(one, weights, 1)[0], step(two, weights, 1)[0])


def test_in_the_objective_the_quantizer_stays_outside():
    z = torch.randn(2, 4, 1, requires_grad=True)
    x_hat = 2 * z.mT
    quantized = Quantized(z, torch.zeros(2, 4, 1).long(), z.square().sum(), {})
    objective = Objective({"recon/l1": 5.0, "quantizer/loss": 1.0}, balancer=Balancer(norm=1.0))
    made = Reconstruction(x_hat, z, quantized)
    terms = objective.generator_terms(torch.zeros(2, 1, 4), made, 0)
    objective.total(terms, 0, x_hat=x_hat).backward()
    outside = 2 * z.detach()  # d sum z^2 / d z
    balanced = 2 * x_hat.detach().sign().mT / 2  # each item's gradient has norm 1 over 4 samples
    torch.testing.assert_close(z.grad, outside + balanced)
    with pytest.raises(ConfigError) as error:
        objective.total(terms, 0)
    assert str(error.value) == (
        "Objective: expected x_hat for the balancer; got None. Pass the reconstruction's x_hat."
    )


def test_a_decay_of_one_is_refused():
    with pytest.raises(ConfigError) as error:
        Balancer(decay=1.0)
    assert str(error.value) == (
        "Balancer: expected a decay in [0, 1) and norm and eps above 0; got "
        "decay 1.0, norm 1.0, eps 1e-12. Correct the objective config."
    )
