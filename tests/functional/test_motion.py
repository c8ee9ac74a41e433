"""Features of motion: values worked out by hand, and joints that come back."""

import math

import pytest
import torch

from tokenizers_vq.data.synthetic_motion import BONES, SyntheticMotion
from tokenizers_vq.errors import ShapeError
from tokenizers_vq.functional import motion
from tokenizers_vq.functional.rotations import about_vertical, turned

LATE = slice(100, 150)  # frames that the smoothing sees both sides of, in 250


def standing(frames=250):
    """A figure that stands still and looks along z."""
    place = torch.zeros(22, 3, dtype=torch.float64)
    for joint in range(1, 22):
        place[joint] = place[motion.PARENTS[joint]] + torch.from_numpy(BONES[joint])
    place[:, 1] -= place[:, 1].min()
    return place.expand(frames, 22, 3).clone()


def walk(index=0, frames=60):
    joints = torch.from_numpy(SyntheticMotion(n=4, frames=frames).joints(index))
    return motion.faced(joints)


def parts(features):
    return features.split(motion.GROUPS, dim=-1)


def test_a_figure_that_slides_along_z_by_hand():
    joints = standing()
    joints[..., 2] += 0.03 * torch.arange(250)[:, None]
    turn, step, height, places, six, steps, still = parts(motion.features_from_joints(joints))
    assert turn.abs().max() < 1e-12
    torch.testing.assert_close(step[7], torch.tensor([0, 0.03], dtype=torch.float64))
    assert torch.equal(height[:, 0], joints[:-1, 0, 1])
    expected = joints[0, 1:] - joints[0, :1] * torch.tensor([1, 0, 1])
    torch.testing.assert_close(places[9].view(21, 3), expected)
    moved = torch.tensor([0, 0, 0.03], dtype=torch.float64)
    torch.testing.assert_close(steps[9].view(22, 3), moved.expand(22, 3))
    assert still.all()  # 0.03 m squared is below 0.002
    faster = motion.features_from_joints(joints * torch.tensor([1, 1, 1.5]))
    assert not parts(faster)[6].any()  # 0.045 m squared is above
    # the left hip hangs outward and down: its bone is the rest direction x turned by 41.6 degrees
    x, y, _ = BONES[1] / math.hypot(*BONES[1])
    column = torch.tensor([x, y, 0, -y, x, 0], dtype=torch.float64)
    torch.testing.assert_close(six[3].view(21, 6)[0], column)


def test_a_figure_that_turns_on_the_spot_has_half_its_turn():
    rate = 0.02
    turns = about_vertical(rate * torch.arange(250, dtype=torch.float64))
    joints = turned(turns[:, None], standing())
    turn, step, _, places, _, _, _ = parts(motion.features_from_joints(joints))
    # what looks left by `rate` more is turned back by it, and half of that is kept
    torch.testing.assert_close(turn[LATE], torch.full_like(turn[LATE], -rate / 2))
    assert step.abs().max() < 1e-12
    torch.testing.assert_close(places[LATE], places[:1].expand_as(places[LATE]), atol=1e-6, rtol=0)


def test_the_heading_is_of_shoulders_less_hips_and_begins_at_zero():
    joints = standing()
    # shoulders to 0.2 rad, hips to -0.1: what is left is at neither angle
    for pair, angle in (((16, 17), 0.2), ((1, 2), -0.1)):
        turn = about_vertical(torch.tensor(angle, dtype=torch.float64))
        joints[:, pair] = turned(turn, joints[:, pair])
    shoulders, hips = (joints[0, a] - joints[0, b] for a, b in ((17, 16), (2, 1)))
    across = shoulders - hips
    expected = -math.atan2(float(across[2]), -float(across[0]))
    heading = motion.smooth_heading(joints)
    assert float(heading[0]) == 0
    torch.testing.assert_close(heading[1:], torch.full_like(heading[1:], expected))
    assert abs(expected) > 0.3  # neither of the two


@pytest.mark.parametrize("index", range(3))
def test_joints_come_back_from_features_both_ways(index):
    joints = walk(index)
    features = motion.features_from_joints(joints)
    back = motion.joints_from_features(features)
    torch.testing.assert_close(back, joints[:-1])
    lengths = motion.bone_lengths(joints)
    torch.testing.assert_close(motion.joints_from_rotations(features, lengths), joints[:-1])
    longer = motion.joints_from_rotations(features, 1.1 * lengths)
    torch.testing.assert_close(motion.bone_lengths(longer), 1.1 * lengths)


def test_batches_are_their_items():
    joints = torch.stack([walk(0), walk(1)])[None]
    features = motion.features_from_joints(joints)
    assert features.shape == (1, 2, 60, 263)
    torch.testing.assert_close(features[0, 1], motion.features_from_joints(walk(1)))
    torch.testing.assert_close(motion.joints_from_features(features), joints[..., :-1, :, :])


def test_where_the_figure_stands_does_not_matter_once_it_is_faced():
    joints = walk()
    turn = about_vertical(torch.tensor(2.0, dtype=torch.float64))
    moved = turned(turn, joints) + torch.tensor([3.0, -1, 2])
    torch.testing.assert_close(motion.faced(moved), joints)


def test_a_mirror_before_is_a_mirror_behind():
    joints = walk(2)
    other = joints[:, motion.MIRROR] * torch.tensor([-1.0, 1, 1])
    features = motion.features_from_joints(joints)
    mirrored = motion.mirrored(features)
    torch.testing.assert_close(mirrored, motion.features_from_joints(other))
    torch.testing.assert_close(motion.mirrored(mirrored), features)


def test_a_bone_without_length_is_no_nan():
    joints = walk()
    joints[:, 12] = joints[:, 9]
    assert motion.features_from_joints(joints).isfinite().all()


def test_gradients_flow_from_joints_to_features():
    features = motion.features_from_joints(walk()).requires_grad_()
    motion.joints_from_features(features).square().sum().backward()
    used = features.grad.abs().sum(0) > 0
    assert used[:67].all()
    assert not used[67:].any()


def test_other_widths_are_refused():
    with pytest.raises(ShapeError, match=r"joints_from_features: expected shape \(\*batch, T, 263"):
        motion.joints_from_features(torch.zeros(5, 251))
    with pytest.raises(ShapeError, match=r"features_from_joints: expected shape"):
        motion.features_from_joints(torch.zeros(5, 21, 3))
