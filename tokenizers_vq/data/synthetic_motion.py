"""Generated figures that walk, turn and move their arms, for tests and first runs."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.motion import SIGNAL
from tokenizers_vq.data.transforms import draw_generator
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.motion import (
    FEET,
    FRAME_RATE,
    PARENTS,
    faced,
    features_from_joints,
)

# Where each joint is from its parent when the figure stands with hanging arms, metres.
BONES = np.array([
    (0, 0, 0), (0.09, -0.08, 0), (-0.09, -0.08, 0), (0, 0.11, -0.01), (0.01, -0.39, 0),
    (-0.01, -0.39, 0), (0, 0.13, 0), (0, -0.42, -0.02), (0, -0.42, -0.02), (0, 0.06, 0.01),
    (0.02, -0.06, 0.13), (-0.02, -0.06, 0.13), (0, 0.21, -0.02), (0.07, 0.11, 0),
    (-0.07, 0.11, 0), (0, 0.1, 0.04), (0.12, 0.04, 0), (-0.12, 0.04, 0), (0.01, -0.26, 0),
    (-0.01, -0.26, 0), (0, -0.25, 0.01), (0, -0.25, 0.01),
])  # fmt: skip


class SyntheticMotion(SignalDataset):
    """Figures of different gaits, sizes and temperaments, on level ground.

    Hips, knees, ankles and arms swing in a cycle; the foot on the ground stays where it is and
    carries the figure on. Motion ``i`` is a function of ``seed``, ``i`` and ``frames`` alone and is
    the same in each epoch.

    Args:
        n: number of motions.
        frames: of each, at 20 per second.
        seed: another seed gives other motions.

    Shapes:
        item ``(263, frames)`` float32, see ``functional.motion``

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(self, n: int = 256, frames: int = 64, seed: int = 0) -> None:
        if min(n, frames) < 1:
            raise ConfigError(
                f"SyntheticMotion: expected n and frames of 1 or more; got n={n}, frames={frames}."
            )
        super().__init__([f"{index:08d}" for index in range(n)], SIGNAL)
        self.frames, self.seed = frames, seed
        self._made: dict[int, Tensor] = {}

    def item(self, index: int, epoch: int) -> Tensor:
        """Return motion ``index``; ``epoch`` changes nothing."""
        if index not in self._made:
            features = features_from_joints(faced(torch.from_numpy(self.joints(index))))
            self._made[index] = features.T.float().contiguous()
        return self._made[index]

    def joints(self, index: int) -> np.ndarray:
        """Return the joints ``(frames + 1, 22, 3)`` float64 of motion ``index``, metres."""
        generator = draw_generator(self.seed, 0, index)
        times = np.arange(self.frames + 1) / FRAME_RATE
        angles = _angles(generator, times)
        bones = BONES * generator.uniform(0.92, 1.08)
        return _walked(_posed(angles, bones), _heading(generator, times))

    def sha256(self) -> str:
        """Return the hex digest over the ids and features of all motions; makes each of them."""
        digest = hashlib.sha256()
        for index, id_ in enumerate(self.ids):
            digest.update(id_.encode() + self.item(index, 0).numpy().tobytes())
        return digest.hexdigest()


def _angles(generator: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Return turns ``(22, T, 3)`` of joints about x, y and z, radians."""
    draw: Any = generator.uniform
    cycle = 2 * np.pi * draw(0.5, 1.2) * times + draw(0, 2 * np.pi)
    stride, knee, crouch = draw(0.1, 0.55), draw(0.3, 1.1), draw(0, 0.4)
    swing, elbow, lean = draw(0, 0.8), draw(0.1, 1.2), draw(-0.05, 0.25)
    angles = np.zeros((22, len(times), 3))
    for side, (hip, knee_joint, ankle, shoulder, elbow_joint) in enumerate(
        ((1, 4, 7, 16, 18), (2, 5, 8, 17, 19))
    ):
        phase = cycle + np.pi * side
        bend = crouch + knee * np.clip(-np.sin(phase), 0, None) ** 1.5
        forward = stride * np.cos(phase) + crouch / 2
        angles[hip][:, 0] = -forward
        angles[knee_joint][:, 0] = bend
        angles[ankle][:, 0] = 0.7 * (forward - bend)
        outward = 1 if side == 0 else -1
        angles[shoulder][:, 0] = swing * np.cos(phase) - _slow(generator, times, 0.5)
        angles[shoulder][:, 2] = outward * (0.1 + np.abs(_slow(generator, times, 0.8)))
        angles[elbow_joint][:, 0] = -elbow - 0.3 * swing * np.cos(phase)
    for joint in (3, 6, 9):
        angles[joint][:, 0] = lean / 3
        angles[joint][:, 1] = stride / 4 * np.cos(cycle) + _slow(generator, times, 0.1)
    angles[12][:, 1] = _slow(generator, times, 0.5)
    return angles


def _slow(generator: np.random.Generator, times: np.ndarray, size: float) -> np.ndarray:
    """Return a slow wave ``(T,)`` of at most ``size``."""
    rate, phase = generator.uniform(0.1, 0.6), generator.uniform(0, 2 * np.pi)
    wave: np.ndarray = generator.uniform(0, size) * np.sin(2 * np.pi * rate * times + phase)
    return wave


def _heading(generator: np.random.Generator, times: np.ndarray) -> np.ndarray:
    return np.asarray(generator.uniform(-0.5, 0.5) * times + _slow(generator, times, 0.5))


def _posed(angles: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """Return joints ``(T, 22, 3)`` from the root."""
    turns = _turn(angles)  # (22, T, 3, 3)
    places = np.zeros((angles.shape[1], 22, 3))
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            places[:, joint] = places[:, parent] + turns[parent] @ bones[joint]
            turns[joint] = turns[parent] @ turns[joint]
    return places


def _walked(places: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """Return joints ``(T, 22, 3)`` in the world: the lowest foot stays where it is."""
    turn = _turn(np.stack([0 * heading, heading, 0 * heading], axis=1))
    places = np.einsum("tij,tkj->tki", turn, places)
    feet = places[:, list(FEET)]
    lowest = feet[..., 1].argmin(1)
    frame = np.arange(len(feet) - 1)
    step = feet[frame, lowest[:-1]] - feet[frame + 1, lowest[:-1]]
    root = np.concatenate([np.zeros((1, 3)), step.cumsum(0)])
    root[:, 1] = -feet[..., 1].min(1)
    return np.asarray(places + root[:, None])


def _turn(angles: np.ndarray) -> np.ndarray:
    """Return rotations ``(..., 3, 3)`` about x, then z, then y, of ``(..., 3)`` radians."""
    cx, cy, cz = np.moveaxis(np.cos(angles), -1, 0)
    sx, sy, sz = np.moveaxis(np.sin(angles), -1, 0)
    one, zero = np.ones_like(cx), np.zeros_like(cx)
    about_x = _matrix(one, zero, zero, zero, cx, -sx, zero, sx, cx)
    about_y = _matrix(cy, zero, sy, zero, one, zero, -sy, zero, cy)
    about_z = _matrix(cz, -sz, zero, sz, cz, zero, zero, zero, one)
    return np.asarray(about_y @ about_z @ about_x)


def _matrix(*entries: np.ndarray) -> np.ndarray:
    matrix = np.stack(entries, axis=-1)
    return np.asarray(matrix.reshape(*matrix.shape[:-1], 3, 3))
