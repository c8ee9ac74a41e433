import torch

from tokenizers_vq.functional import distributed


def test_one_process_sums_to_itself():
    a, b = torch.randn(3), torch.randn(2, 2, requires_grad=True)
    assert distributed.world_size() == 1
    assert distributed.sum_over_ranks(a, b) == (a, b)
    assert distributed.total_over_ranks(b) is b


def test_gathered_rows_are_evenly_spaced_when_there_are_too_many():
    rows = torch.arange(10.0)[:, None]
    assert torch.equal(distributed.gather_rows(rows, 10), rows)
    assert distributed.gather_rows(rows, 4)[:, 0].tolist() == [0, 3, 6, 9]
    assert distributed.gather_rows(rows[:0], 4).shape == (0, 1)


def test_one_process_is_closest_everywhere():
    rows = torch.randn(5, 3)
    assert torch.equal(distributed.closest_over_ranks(torch.rand(5), rows), rows)
