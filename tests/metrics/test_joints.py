"""Distances of joints, worked out by hand."""

import numpy as np
import pytest
import torch

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.rotations import from_six
from tokenizers_vq.metrics.joints import acceleration_error, foot_skate, mpjpe, root_error


def motion(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, 4, 3, generator=generator, dtype=torch.float64)


def test_what_each_alignment_takes_away():
    real = motion()
    generator = torch.Generator().manual_seed(1)
    turn = from_six(torch.randn(2, 5, 1, 6, generator=generator, dtype=torch.float64))
    moved = real + torch.tensor([0.3, 0, 0.4])
    turned = (turn @ real[..., None])[..., 0]
    expected = {"none": 500, "root": 0, "rigid": 0, "similarity": 0}
    for align, value in expected.items():
        found = mpjpe(real, moved, align)
        torch.testing.assert_close(found, torch.full_like(found, value))
    assert mpjpe(real, turned, "root").min() > 100
    assert mpjpe(real, turned, "rigid").max() < 1e-9
    assert mpjpe(real, 1.5 * turned, "rigid").min() > 100
    assert mpjpe(real, 1.5 * turned, "similarity").max() < 1e-9
    assert mpjpe(real, -real, "similarity").min() > 100  # a mirror is no turn
    torch.testing.assert_close(root_error(real, moved), torch.full((2,), 500, dtype=torch.float64))


def test_the_default_is_against_the_root_and_counts_it():
    real = torch.zeros(1, 2, 4, 3)
    fake = real.clone()
    fake[0, 0, 0, 1] = 0.1  # the root of one of two frames: all four joints are off, but itself
    assert mpjpe(real, fake).item() == pytest.approx(1000 * 0.1 * 3 / 8)
    assert mpjpe(real, fake, "none").item() == pytest.approx(1000 * 0.1 / 8)


def test_accelerations_by_hand():
    real = torch.zeros(1, 4, 1, 3)
    fake = real.clone()
    fake[0, :, 0, 0] = torch.tensor([0.0, 0.001, 0.004, 0.009])  # second differences of 0.002
    assert acceleration_error(real, fake).item() == pytest.approx(2, rel=1e-5)
    fake[0, :, 0, 0] = torch.arange(4)  # a steady drift is none
    assert acceleration_error(real, fake).item() == 0


def test_a_foot_skates_when_it_is_down_and_moves():
    joints = np.zeros((1, 5, 12, 3))
    joints[0, :, 11, 1] = 1.0  # the right one is in the air
    joints[0, :, 10, 2] = [0, 0, 0.1, 0.2, 0.2]  # the left one slides in 2 of 4 steps
    assert foot_skate(torch.from_numpy(joints)).item() == 0.5
    joints[0, 2, 10, 1] = 0.2  # and is lifted over both
    assert foot_skate(torch.from_numpy(joints)).item() == 0


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="mpjpe align: there is no 'pelvis'"):
        mpjpe(motion(), motion(), "pelvis")
    with pytest.raises(ShapeError) as error:
        mpjpe(motion(), motion()[:, :4])
    assert str(error.value) == (
        "metrics.joints: expected two motions of one shape; got (2, 5, 4, 3) and (2, 4, 4, 3). "
        "Crop the longer one."
    )
    with pytest.raises(ShapeError, match="expected 3 frames or more; got 2"):
        acceleration_error(motion()[:, :2], motion()[:, :2])
