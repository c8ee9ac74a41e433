import pytest
import torch

from tokenizers_vq.functional.moments import moments


def naive(x):
    mean = x.mean(0)
    std = x.std(0)
    unit = (x - mean) / std
    return mean, x.var(0), unit.pow(3).mean(0), unit.pow(4).mean(0) - 3


@pytest.mark.parametrize("shift", [0.0, -3.0, 1000.0])
def test_values_and_gradients_are_those_of_the_definitions(shift):
    torch.manual_seed(0)
    x = (torch.randn(200, 3).exp() + shift).requires_grad_()
    exact = x.detach().double().requires_grad_()
    g = torch.randn(3)
    for got, wanted in zip(moments(x, torch.ones(200).bool()), naive(exact), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=2e-3 if shift else 1e-4, atol=1e-5)
        (a,) = torch.autograd.grad((got * g).sum(), x, retain_graph=True)
        (b,) = torch.autograd.grad((wanted * g.double()).sum(), exact, retain_graph=True)
        torch.testing.assert_close(a.double(), b, rtol=2e-2 if shift else 1e-3, atol=1e-4)


def test_other_rows_do_not_count():
    x, valid = torch.randn(50, 3), torch.rand(50) > 0.5
    everything = torch.ones(int(valid.sum())).bool()
    for a, b in zip(moments(x, valid), moments(x[valid], everything), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_give_finite_numbers(rows):
    x = torch.full((rows, 2), 5.0, requires_grad=True)
    mean, variance, skewness, kurtosis = moments(x, torch.ones(rows).bool())
    assert mean.tolist() == [5.0 * rows] * 2
    assert variance.tolist() == [0, 0]
    assert skewness.tolist() == [0, 0]
    assert kurtosis.tolist() == [-3, -3]
    (mean + variance + skewness + kurtosis).sum().backward()
    assert bool(torch.isfinite(x.grad).all())
