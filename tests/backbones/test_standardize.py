import pytest
import torch

from tokenizers_vq.backbones.standardize import Standardize
from tokenizers_vq.errors import ShapeError


def test_it_begins_as_the_identity_and_is_undone():
    part = Standardize(3)
    x = torch.randn(2, 3, 5)
    assert torch.equal(part(x), x)
    assert not part.fitted
    part.fit(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 4, 0.5]))
    torch.testing.assert_close(
        part(torch.full((1, 3, 1), 5.0)).flatten(), torch.tensor([4, 0.75, 4])
    )
    torch.testing.assert_close(part.undo(part(x)), x)
    assert part.fitted


def test_groups_share_a_deviation_and_still_channels_get_one():
    part = Standardize(5, [2, 1, 2])
    part.fit(torch.zeros(5), torch.tensor([1.0, 3, 0, 0, 4]))
    assert part.std.tolist() == [2, 2, 1, 2, 2]
    with pytest.raises(ShapeError, match=r"Standardize\.fit: expected shape \(5\)"):
        part.fit(torch.zeros(4), torch.zeros(5))
