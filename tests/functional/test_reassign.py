import torch

from tokenizers_vq.functional.reassign import reassign_unused

CODES = torch.tensor([[[0.0], [1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0], [7.0]]])
COUNTS = torch.tensor([[9.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 8.0]])


def test_unused_codes_copy_the_most_used_ones():
    codes = reassign_unused(CODES, COUNTS, threshold=0.1)
    assert codes[..., 0].tolist() == [[0, 0, 2, 2], [7, 7, 6, 7]]


def test_at_most_a_share_changes():
    codes = reassign_unused(CODES, COUNTS, threshold=0.1, share=0.25)
    assert codes[..., 0].tolist() == [[0, 0, 2, 3], [7, 5, 6, 7]]


def test_copies_get_noise_and_others_do_not():
    torch.manual_seed(0)
    codes = reassign_unused(CODES, COUNTS, threshold=0.1, noise=0.01)
    moved = (codes - reassign_unused(CODES, COUNTS, threshold=0.1)).abs()[..., 0]
    assert (moved > 0).tolist() == [[False, True, False, True], [True, True, False, False]]
    assert float(moved.max()) < 0.1


def test_nothing_chosen_or_no_threshold_changes_nothing():
    assert torch.equal(reassign_unused(CODES, torch.zeros(2, 4), threshold=0.1), CODES)
    assert torch.equal(reassign_unused(CODES, COUNTS, threshold=0.0), CODES)
