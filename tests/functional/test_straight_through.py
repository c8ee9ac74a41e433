import pytest
import torch

from tokenizers_vq.functional.straight_through import rotate_to, straight_through


@pytest.mark.parametrize("estimate", [straight_through, rotate_to])
def test_the_value_is_that_of_the_code_bit_for_bit(estimate):
    z, q = 3 * torch.randn(500, 7), torch.randn(500, 7)
    assert torch.equal(estimate(z, q), q)


def test_straight_through_has_identity_gradient_and_none_to_the_code():
    z = torch.randn(5, 3, requires_grad=True)
    q = torch.randn(5, 3, requires_grad=True)
    g = torch.randn(5, 3)
    straight_through(z, q).backward(g)
    assert torch.equal(z.grad, g)
    assert q.grad is None


def test_rotation_golden():
    jacobian = torch.autograd.functional.jacobian(
        lambda z: rotate_to(z, torch.tensor([0.0, 2.0])), torch.tensor([3.0, 4.0])
    )
    torch.testing.assert_close(jacobian, torch.tensor([[0.32, -0.24], [0.24, 0.32]]))


def test_rotation_golden_gradients():
    x = torch.tensor([[0.2, 0.1], [0.9, 0.3], [1.4, 1.6], [0.1, 0.7], [0.8, -0.1]])
    q = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 2.0], [0.0, 1.0], [1.0, 0.0]])
    x.requires_grad_()
    rotate_to(x, q).backward(torch.tensor([1.0, 2.0]).expand(5, 2))
    # The first code is zero: the reference loses its gradient there, we pass it through.
    expected = [[1, 2], [0.333333, 2.333333], [1.150442, 2.743362], [1.8, 2.6]]
    expected.append([1.538462, 2.307692])
    torch.testing.assert_close(x.grad, torch.tensor(expected), atol=1e-5, rtol=0)


def test_rotation_scales_gradients_by_the_ratio_of_lengths():
    z = torch.randn(50, 4, requires_grad=True)
    q, g = torch.randn(50, 4), torch.randn(50, 4)
    rotate_to(z, q).backward(g)
    ratio = q.norm(dim=1) / z.detach().norm(dim=1)
    torch.testing.assert_close(z.grad.norm(dim=1), ratio * g.norm(dim=1))


@pytest.mark.parametrize(
    ("z", "q"), [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 0.0], [-2.0, 0.0])]
)
def test_rotation_falls_back_to_straight_through(z, q):
    z = torch.tensor([z], requires_grad=True)
    rotate_to(z, torch.tensor([q])).backward(torch.tensor([[1.0, 2.0]]))
    assert z.grad.tolist() == [[1.0, 2.0]]
