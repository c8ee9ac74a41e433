import math

import pytest
import torch
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.gumbel import Gumbel


def relaxed(head, z, seed):
    """The definition, with the noise that the head draws after the same seed."""
    scores = F.linear(z.reshape(-1, z.shape[-1]), head.scores.weight, head.scores.bias)
    torch.manual_seed(seed)
    noise = -torch.empty_like(scores).exponential_().log()
    return scores, torch.softmax((scores + noise) / head.temperature, dim=1)


def test_training_returns_the_mean_code_under_noisy_scores():
    head = Gumbel(3, codebook_size=7, temperature=0.6, straight_through=False)
    z = torch.randn(2, 5, 3)
    _, p = relaxed(head, z, seed=4)
    torch.manual_seed(4)
    out = head(z)
    torch.testing.assert_close(out.z_q.reshape(-1, 3), p @ head.codebook)
    assert torch.equal(out.indices.flatten(), p.argmax(1))


def test_straight_through_returns_codes_with_the_gradient_of_the_mean():
    head = Gumbel(3, codebook_size=7, straight_through=True)
    z, g = torch.randn(2, 5, 3), torch.randn(10, 3)
    _, p = relaxed(head, z, seed=4)
    (expected,) = torch.autograd.grad(p @ head.codebook.detach(), head.scores.weight, g)
    torch.manual_seed(4)
    out = head(z)
    flat = out.z_q.reshape(-1, 3)
    assert torch.equal(out.z_q, head.decode(out.indices))
    got = torch.autograd.grad(flat, (head.scores.weight, head.codebook), g)
    torch.testing.assert_close(got[0], expected)
    rows = torch.zeros(7, 3).index_add_(0, out.indices.flatten(), g)
    torch.testing.assert_close(got[1], rows)


def test_the_uniform_term_is_the_divergence_of_the_scores():
    head = Gumbel(3, codebook_size=7, uniform_weight=0.5)
    z = torch.randn(2, 5, 3)
    scores, _ = relaxed(head, z, seed=0)
    p = torch.softmax(scores, dim=1)
    expected = (p * (p * 7).log()).sum(1).mean()
    out = head(z)
    torch.testing.assert_close(out.terms["uniform"], expected.detach())
    torch.testing.assert_close(out.loss, 0.5 * expected)
    with torch.no_grad():
        head.scores.weight.zero_()
        head.scores.bias.zero_()
    assert float(head(z).terms["uniform"]) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        head.scores.bias[2] = 100
    assert float(head(z).terms["uniform"]) == pytest.approx(math.log(7), rel=1e-5)


def test_indices_in_training_are_drawn_from_the_softmax_of_the_scores():
    torch.manual_seed(0)
    head = Gumbel(2, codebook_size=4, temperature=0.1)
    z = torch.randn(2).expand(1, 50_000, 2)
    shares = torch.bincount(head(z).indices.flatten(), minlength=4) / 50_000
    expected = torch.softmax(head.scores(z[0, 0]), dim=0).detach()
    torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)


def test_a_cold_relaxation_is_nearly_one_code():
    head = Gumbel(3, codebook_size=7, temperature=1e-4, straight_through=False)
    out = head(torch.randn(2, 40, 3))
    near = (out.z_q - head.decode(out.indices)).abs().amax(-1)
    assert float((near < 1e-3).float().mean()) > 0.95


@pytest.mark.parametrize("options", [{}, {"straight_through": False}])
def test_it_learns_to_rebuild(options):
    torch.manual_seed(0)
    head = Gumbel(2, codebook_size=16, **options)
    z = torch.randn(1, 300, 2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for step in range(120):
        head.temperature = max(0.1, 1 - step / 100)
        out = head(z)
        optimizer.zero_grad()
        ((out.z_q - z).square().mean() + out.loss).backward()
        optimizer.step()
    error = (head.eval()(z).z_q - z).square().mean()
    assert float(error.detach()) < 0.4 * float(z.var())


def test_a_temperature_of_zero_is_named():
    with pytest.raises(ConfigError) as error:
        Gumbel(2, codebook_size=4, temperature=0.0)
    assert str(error.value) == (
        "Gumbel: expected a temperature above 0; got 0.0. "
        "For hard choices in training set straight_through."
    )


def test_a_width_is_required():
    with pytest.raises(ConfigError) as error:
        Gumbel(codebook_size=4)
    assert str(error.value) == "Gumbel: expected dim or code_dim; got neither. Set one of them."
