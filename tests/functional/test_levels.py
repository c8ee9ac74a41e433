import pytest
import torch

from tokenizers_vq.functional.levels import nearest_levels, pick_levels


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_no_other_level_is_nearer(count):
    u, table = torch.randn(500, 3), torch.randn(3, count)
    got = nearest_levels(u, table)
    distance = (u.double()[:, :, None] - table.double()).abs()
    assert torch.equal(got, distance.argmin(-1))
    assert torch.equal(pick_levels(table, got), torch.gather(table.T, 0, got))


def test_the_lower_of_equally_near_levels():
    table = torch.tensor([[-1.0, 1.0, 3.0], [3.0, 1.0, -1.0]])
    u = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    assert nearest_levels(u, table).tolist() == [[0, 2], [1, 1]]


def test_filling_is_never_chosen():
    table = torch.tensor([[0.0, 1.0, torch.inf, torch.inf], [0.0, 1.0, 2.0, 3.0]])
    u = torch.tensor([[1e30, 1e30], [-1e30, -1e30], [3e38, 3e38]])
    assert nearest_levels(u, table).tolist() == [[1, 3], [0, 0], [1, 3]]


def test_gradients_reach_the_levels_that_were_picked():
    table = torch.randn(2, 3, requires_grad=True)
    pick_levels(table, torch.tensor([[0, 2], [0, 1]])).sum().backward()
    assert table.grad.tolist() == [[2, 0, 0], [0, 1, 1]]
