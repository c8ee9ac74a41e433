"""Causal 3D convolutions, norms of frames, Haar cells with time."""

import pytest
import torch
from reference.mamba import wave

from tokenizers_vq.backbones.causal_conv3d import (
    CausalConv3d,
    GroupNorm3d,
    from_haar_cells,
    haar_cells,
)


def test_the_stored_values_of_haar_cells():
    x = wave((1, 1, 5, 4, 4), 0.3, 0).float()
    cells = haar_cells(x, 2)
    assert cells.shape == (1, 8, 3, 2, 2)
    first = [0.5562636, -0.09024401, -0.4085034, -0.05751608, 0, 0, 0, 0]
    assert cells[0, :, 0, 0, 0].tolist() == pytest.approx(first, rel=1e-5, abs=1e-7)
    later = [0.6011385, -0.004143456, -0.01875592, -0.06215603, 0.02511293, 0.08322283, 0.3767210,
             -0.002596626]  # fmt: skip
    assert cells[0, :, 1, 1, 1].tolist() == pytest.approx(later, rel=1e-4)
    assert float(cells.abs().sum()) == pytest.approx(15.16391, rel=1e-6)
    cells = haar_cells(x, 4)
    assert cells.shape == (1, 64, 2, 1, 1)
    eight = [-0.01811139, -0.0003101709, -0.001404051, 0.001872665, 0.001879919, -0.002507390,
             -0.01135004, -0.0001943772]  # fmt: skip
    assert cells[0, :8, 1, 0, 0].tolist() == pytest.approx(eight, rel=1e-4)
    assert float(cells.abs().sum()) == pytest.approx(3.966246, rel=1e-6)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_haar_cells_are_undone_and_keep_constants(patch):
    x = torch.randn(2, 3, 9, 8, 12)
    cells = haar_cells(x, patch)
    torch.testing.assert_close(from_haar_cells(cells, patch), x)
    ones = haar_cells(torch.ones(1, 3, 9, 4, 4), patch)
    assert (ones[:, :3] == 1).all()
    assert (ones[:, 3:] == 0).all()


def test_a_convolution_pads_the_past_with_its_first_frame_or_zeros():
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).reshape(1, 1, 5, 1, 1)
    for lead, stride, expected in (
        ("replicate", 1, [3, 4, 7, 14, 28]), ("zeros", 1, [1, 3, 7, 14, 28]),
        ("replicate", 2, [3, 7, 28]),
    ):  # fmt: skip
        conv = CausalConv3d((1, 1), (3, 1, 1), (stride, 1, 1), lead=lead, bias=False)
        conv.weight.data.fill_(1)
        assert conv(x).flatten().tolist() == expected


def test_frames_are_normalised_by_themselves_or_together():
    x = torch.randn(2, 4, 3, 5, 5)
    frame = GroupNorm3d(2, 4)
    for t in range(3):
        torch.testing.assert_close(frame(x)[:, :, t], torch.nn.functional.group_norm(
            x[:, :, t], 2, eps=1e-6))  # fmt: skip
    clip = GroupNorm3d(2, 4, over="clip")
    torch.testing.assert_close(clip(x), torch.nn.functional.group_norm(x, 2, eps=1e-6))
