"""Human motion as 263 numbers per frame, as HumanML3D has them, and as joints in space.

Joints are ``(..., T, 22, 3)`` in metres, y up, in the order ``JOINTS``; features are
``(..., T, 263)`` at 20 frames per second:

======== ==========================================================================================
0        half of the turn of the heading to the next frame, radians
1:3      x and z of the root's step to the next frame, seen from the heading of the next frame
3        height of the root
4:67     the 21 other joints, x and z from the root, turned into the heading
67:193   rotations of 21 bones against the bone before, their first two columns
193:259  steps of all joints to the next frame, turned into the heading
259:263  whether left ankle, left foot, right ankle and right foot stand still
======== ==========================================================================================

Reference:
    Guo et al., Generating Diverse and Natural 3D Human Motions from Text, CVPR 2022, section 3.
    The published files have three properties that the paper does not name and that are kept here,
    as statistics and weights depend on them: the heading is smoothed over time, its hips enter with
    the wrong sign and its first value is 0; the first bones of each chain are against the
    heading's inverse.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.errors import check_shape
from tokenizers_vq.functional.rotations import (
    about_vertical,
    from_six,
    shortest_arc,
    to_six,
    turned,
)

JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar",
    "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist",
    "right_wrist",
)  # fmt: skip
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
# Direction of the bone that ends in each joint, of a figure whose arms hang, before any rotation.
REST = (
    (0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, -1, 0), (0, 1, 0), (0, -1, 0),
    (0, -1, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1), (0, 1, 0), (1, 0, 0), (-1, 0, 0), (0, 0, 1),
    (0, -1, 0), (0, -1, 0), (0, -1, 0), (0, -1, 0), (0, -1, 0), (0, -1, 0),
)  # fmt: skip
FIRST = (1, 2, 3, 13, 14)  # joints whose bones begin a chain
MIRROR = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20)
FEET = (7, 10, 8, 11)
GROUPS = (1, 2, 1, 63, 126, 66, 4)
"""Features that are numbers of one kind: turn, step, height, joints, rotations, steps, contacts."""
FRAME_RATE = 20.0
SMOOTH = 20.0  # standard deviation of the heading's smoothing, frames
STILL = 0.002  # squared step below which a foot stands, square metres


def features_from_joints(joints: Tensor) -> Tensor:
    """Return the features ``(..., T - 1, 263)`` of joints ``(..., T, 22, 3)``, T of 2 or more.

    Where the figure stands and which way it looks at first are lost, and so is the last frame.

    Raises:
        ShapeError: another rank or number of joints.
    """
    check_shape(joints, "*batch T 22 3", "features_from_joints", "Joints are those of JOINTS.")
    heading = smooth_heading(joints)
    to_heading = about_vertical(heading)  # (..., T, 3, 3)
    turn = _wrapped(heading[..., 1:] - heading[..., :-1]) / 2
    steps = joints[..., 1:, :, :] - joints[..., :-1, :, :]
    root = turned(to_heading[..., 1:, :, :], steps[..., 0, :])
    ground = joints[..., :1, :] * joints.new_tensor([1.0, 0.0, 1.0])
    placed = turned(to_heading[..., None, :, :], joints - ground)
    still = steps[..., FEET, :].square().sum(-1) < STILL
    parts = [
        turn[..., None],
        root[..., ::2],
        joints[..., :-1, 0, 1:2],
        placed[..., :-1, 1:, :].flatten(-2),
        to_six(bone_rotations(joints, to_heading))[..., :-1, :, :].flatten(-2),
        turned(to_heading[..., :-1, None, :, :], steps).flatten(-2),
        still.to(joints),
    ]
    return torch.cat(parts, dim=-1)


def joints_from_features(features: Tensor) -> Tensor:
    """Return the joints ``(..., T, 22, 3)`` of features ``(..., T, 263)``, by their positions.

    The first frame looks along z and stands at x = z = 0.

    Raises:
        ShapeError: another width.
    """
    check_shape(features, "*batch T 263", "joints_from_features", "See functional.motion.")
    root, to_heading = root_path(features)
    placed = _rows(features[..., 4:67], 3)
    ground = root * root.new_tensor([1.0, 0.0, 1.0])
    others = turned(to_heading.mT[..., None, :, :], placed) + ground[..., None, :]
    return torch.cat([root[..., None, :], others], dim=-2)


def joints_from_rotations(features: Tensor, lengths: Tensor) -> Tensor:
    """Return the joints ``(..., T, 22, 3)`` of features, by their rotations: no bone stretches.

    Forward kinematics: every bone is its rest direction times its length, turned by the rotations
    of all bones of its chain up to it.

    Args:
        features: ``(..., T, 263)``.
        lengths: ``(22,)``, length of the bone that ends in each joint, metres; see
            ``bone_lengths``.

    Raises:
        ShapeError: another width or number of bones.
    """
    check_shape(features, "*batch T 263", "joints_from_rotations", "See functional.motion.")
    check_shape(lengths, "22", "joints_from_rotations", "One length per joint, 0 for the root.")
    root, to_heading = root_path(features)
    local = from_six(_rows(features[..., 67:193], 6))
    bones = features.new_tensor(REST) * lengths[:, None]
    places, turns = [root], [to_heading]
    for joint in range(1, 22):
        before = to_heading if joint in FIRST else turns[PARENTS[joint]]
        turns.append(before @ local[..., joint - 1, :, :])
        places.append(places[PARENTS[joint]] + turned(turns[joint], bones[joint]))
    return torch.stack(places, dim=-2)


def root_path(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return places of the root ``(..., T, 3)`` and turns into its heading ``(..., T, 3, 3)``."""
    before = F.pad(features[..., :-1, :3], (0, 0, 1, 0))  # of each frame, from the one before
    to_heading = about_vertical(2 * before[..., 0].cumsum(-1))
    step = torch.stack([before[..., 1], torch.zeros_like(before[..., 1]), before[..., 2]], dim=-1)
    path = turned(to_heading.mT, step).cumsum(-2)
    height = F.pad(features[..., 3:4], (1, 1))
    return path + height, to_heading


def bone_rotations(joints: Tensor, to_heading: Tensor) -> Tensor:
    """Return the rotation of every bone but the root's against the bone before.

    Args:
        joints: ``(..., T, 22, 3)``.
        to_heading: ``(..., T, 3, 3)``.

    Returns:
        ``(..., T, 21, 3, 3)``. A bone without length has the identity for its whole turn.
    """
    bones = joints[..., 1:, :] - joints[..., PARENTS[1:], :]
    turns = torch.cat(
        [to_heading[..., None, :, :], shortest_arc(joints.new_tensor(REST[1:]), bones)], dim=-3
    )
    before = [0 if joint in FIRST else PARENTS[joint] for joint in range(1, 22)]
    return turns[..., before, :, :].mT @ turns[..., 1:, :, :]


def smooth_heading(joints: Tensor) -> Tensor:
    """Return the angle ``(..., T)`` by which each frame of joints is turned to look along z.

    See the module for what is odd about it: its first value is 0.
    """
    across = _across(joints, -1.0)
    kernel, reach = _gaussian(joints)
    flat = across.transpose(-1, -2).reshape(-1, 1, joints.shape[-3])
    smooth = F.conv1d(F.pad(flat, (reach, reach), mode="replicate"), kernel)
    across = smooth.reshape(*across.shape[:-2], 3, -1).transpose(-1, -2)
    return F.pad(heading_of(across)[..., 1:], (1, 0))


def heading_of(across: Tensor) -> Tensor:
    """Return the angle ``(...)`` that turns figures to look along z.

    Args:
        across: ``(..., 3)``, from a figure's left to its right.
    """
    # what is ahead of the figure is the cross product of up and across, (z, 0, -x)
    return -torch.atan2(across[..., 2], -across[..., 0])


def faced(joints: Tensor) -> Tensor:
    """Return joints ``(..., T, 22, 3)`` turned and moved as a whole, as features begin.

    The first frame looks along z, its root at x = z = 0, and the lowest joint of all at y = 0.
    """
    turn = about_vertical(heading_of(_across(joints[..., 0, :, :], 1.0)))
    joints = turned(turn[..., None, None, :, :], joints)
    start = joints[..., :1, :1, :].clone()
    start[..., 1] = joints[..., 1].amin((-1, -2), keepdim=True)
    return joints - start


def mirrored(features: Tensor) -> Tensor:
    """Return features ``(..., T, 263)`` of the motion in a mirror: left is right."""
    check_shape(features, "*batch T 263", "mirrored", "See functional.motion.")
    turn, step, height, places, six, steps, still = torch.split(features, list(GROUPS), dim=-1)
    swap = [joint - 1 for joint in MIRROR[1:]]
    flip = features.new_tensor([-1.0, 1.0, 1.0])
    six_flip = features.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])
    parts = [
        -turn,
        step * flip[:2],
        height,
        (_rows(places, 3)[..., swap, :] * flip).flatten(-2),
        (_rows(six, 6)[..., swap, :] * six_flip).flatten(-2),
        (_rows(steps, 3)[..., MIRROR, :] * flip).flatten(-2),
        still[..., [2, 3, 0, 1]],
    ]
    return torch.cat(parts, dim=-1)


def bone_lengths(joints: Tensor) -> Tensor:
    """Return the mean length ``(22,)`` of the bone that ends in each joint, metres; the root's 0.

    Args:
        joints: ``(..., 22, 3)``.
    """
    bones = joints[..., 1:, :] - joints[..., PARENTS[1:], :]
    lengths: Tensor = torch.linalg.vector_norm(bones, dim=-1).reshape(-1, 21).mean(0)
    return F.pad(lengths, (1, 0))


def _across(joints: Tensor, hips: float) -> Tensor:
    """Return what points from left to right at shoulders and, times ``hips``, at hips."""
    at_hips = joints[..., 2, :] - joints[..., 1, :]
    across = hips * at_hips + joints[..., 17, :] - joints[..., 16, :]
    length: Tensor = torch.linalg.vector_norm(across, dim=-1, keepdim=True)
    return across / length.clamp(min=1e-8)


def _gaussian(like: Tensor) -> tuple[Tensor, int]:
    """Return the kernel ``(1, 1, 2 n + 1)`` of the smoothing, and n."""
    reach = int(4 * SMOOTH + 0.5)
    place = torch.arange(-reach, reach + 1, dtype=like.dtype, device=like.device)
    kernel = torch.exp(-0.5 * (place / SMOOTH).square())
    return (kernel / kernel.sum())[None, None], reach


def _rows(x: Tensor, width: int) -> Tensor:
    """Return ``(..., N * width)`` as ``(..., N, width)``."""
    return x.reshape(*x.shape[:-1], -1, width)


def _wrapped(angle: Tensor) -> Tensor:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
