import math

import pytest
import torch

from tokenizers_vq.functional import entropy as E

X = torch.tensor([[0.003, -0.002], [-0.001, 0.004], [0.002, 0.002]])


def naive(logits):
    """Softmax over all codes, the way the loss is usually computed."""
    d = logits.shape[1]
    codes = 2.0 * ((torch.arange(2**d)[:, None] >> torch.arange(d)) & 1) - 1
    p = torch.softmax(logits.double() @ codes.double().T / 2, dim=-1)
    sample = -(p * p.log()).sum(-1).mean()
    mean = p.mean(0)
    return sample, -(mean * mean.log()).sum(), mean


def test_golden_two_bits():
    logits, valid = 4 * 100 * X, torch.ones(3, dtype=torch.bool)
    batch, exact = E.batch_entropy(logits, valid)
    assert exact
    assert float(E.sample_entropy(logits, valid)) == pytest.approx(1.1748757, abs=1e-5)
    assert float(batch) == pytest.approx(1.3248453, abs=1e-5)
    # bit 0 fastest: --, +-, -+, ++
    p = E.joint_probabilities(logits, torch.ones(3)) / 3
    expected = torch.tensor([0.118799, 0.270528, 0.261264, 0.349409])
    torch.testing.assert_close(p, expected, atol=1e-5, rtol=0)


def test_golden_four_bits_in_two_groups():
    """Four readings of the batch entropy of grouped bits; heads here report the mean of groups.

    The released WeTok code pools: it averages the assignments of all groups before the entropy. So
    two groups that each use one half of their codes look as if all were used.
    """
    x = torch.tensor([[3.0, -2, 4, 1], [-1, 4, 2, 3], [2, 2, -3, -1]]) / 1000
    valid = torch.ones(3, dtype=torch.bool)
    groups = (400 * x).split(2, dim=1)
    parts = [float(E.batch_entropy(part, valid)[0]) for part in groups]
    pooled = E.batch_entropy(torch.cat(groups), valid.repeat(2))[0]
    assert sum(parts) / 2 == pytest.approx(1.336723, abs=1e-5)
    assert sum(parts) == pytest.approx(2.673446, abs=1e-5)
    guard = 4e-5  # theirs adds 1e-5 to each of four probabilities in the logarithm
    assert float(pooled) - guard == pytest.approx(1.345039, abs=1e-5)
    assert float(E.batch_entropy(400 * x, valid)[0]) == pytest.approx(2.662476, abs=1e-5)
    assert float(E.sample_entropy(400 * x, valid)) == pytest.approx(2.341868, abs=1e-5)


@pytest.mark.parametrize("d", [1, 2, 5, 8, 12])
def test_exact_entropy_and_its_gradient_equal_the_naive_ones(d):
    logits = torch.randn(40, d)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    valid = torch.ones(40, dtype=torch.bool)
    value = E.sample_entropy(ours, valid) - E.batch_entropy(ours, valid)[0]
    sample, batch, mean = naive(theirs)
    torch.testing.assert_close(value.double(), sample - batch, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        E.joint_probabilities(logits, torch.ones(40)).double() / 40, mean, atol=1e-6, rtol=1e-4
    )
    value.backward()
    (sample - batch).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-3)


def test_bounds():
    logits, valid = 2 * torch.randn(30, 10), torch.ones(30, dtype=torch.bool)
    sample = E.sample_entropy(logits, valid)
    joint = E.batch_entropy(logits, valid)[0]
    groups = sum(E.batch_entropy(part, valid)[0] for part in logits.split(5, 1))
    bits = sum(E.batch_entropy(part, valid)[0] for part in logits.split(1, 1))
    assert 0 <= sample <= joint <= groups <= bits <= 10 * math.log(2)
    one = E.batch_entropy(logits[:1], valid[:1])[0]
    torch.testing.assert_close(one, E.sample_entropy(logits[:1], valid[:1]))


def test_many_bits_use_the_sum_over_bits_and_say_so():
    logits, valid = torch.randn(20, 30), torch.ones(20, dtype=torch.bool)
    value, exact = E.batch_entropy(logits, valid)
    assert not exact
    bits = sum(E.batch_entropy(part, valid)[0] for part in logits.split(1, 1))
    torch.testing.assert_close(value, bits)


@pytest.mark.parametrize("d", [4, 30])
def test_rows_that_do_not_count_change_nothing(d):
    logits, valid = torch.randn(9, d), torch.arange(9) % 3 > 0
    for function in (E.sample_entropy, lambda *a: E.batch_entropy(*a)[0]):
        alone = function(logits[valid], torch.ones(6, dtype=torch.bool))
        torch.testing.assert_close(function(logits, valid), alone)


@pytest.mark.parametrize("d", [4, 30])
def test_no_rows_have_no_entropy(d):
    logits = torch.zeros(0, d, requires_grad=True)
    valid = torch.zeros(0, dtype=torch.bool)
    total = E.sample_entropy(logits, valid) + E.batch_entropy(logits, valid)[0]
    total.backward()
    assert float(total.detach()) == 0


def test_saturated_bits_have_finite_gradients():
    logits = torch.tensor([[500.0, -500.0, 90.0]], requires_grad=True)
    valid = torch.ones(1, dtype=torch.bool)
    (E.sample_entropy(logits, valid) - E.batch_entropy(logits, valid)[0]).backward()
    assert bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("d", [9, 18])
def test_large_latents_keep_probabilities_and_gradients(d, scale):
    logits = (scale * torch.randn(16, d)).requires_grad_()
    valid = torch.ones(16, dtype=torch.bool)
    for row in logits.detach().split(1):
        mass = E.joint_probabilities(row, torch.ones(1)).double().sum()
        assert float(mass) == pytest.approx(1, abs=1e-5)
    sample, batch = E.sample_entropy(logits, valid), E.batch_entropy(logits, valid)[0]
    (sample - batch).backward()
    assert bool(torch.isfinite(logits.grad).all())
    assert float(batch.detach()) <= float(sample.detach()) + math.log(16) + 1e-5


def test_certain_rows_have_at_most_the_entropy_of_their_number():
    logits = 1e6 * torch.randn(16, 18).sign()
    valid = torch.ones(16, dtype=torch.bool)
    assert float(E.sample_entropy(logits, valid)) == 0
    assert float(E.batch_entropy(logits, valid)[0]) == pytest.approx(math.log(16), abs=1e-5)
