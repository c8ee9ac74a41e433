"""A folder of human motion: features of HumanML3D, joints, or BVH files of common skeletons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.data.bvh import read_bvh
from tokenizers_vq.data.files import FileFolder
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.functional.motion import (
    FRAME_RATE,
    faced,
    features_from_joints,
    mirrored,
)
from tokenizers_vq.types import SignalSpec

SIGNAL = SignalSpec("motion", channels=263, value_range=(-10.0, 10.0), frame_rate=FRAME_RATE)
LEG = 0.82  # metres from hip to ankle, to which other skeletons are scaled
Mix = Mapping[str, float]
SIDES = ("Left", "Right")


def _skeleton(spine: Sequence[Mix], arms: Sequence[Mix], legs: Sequence[str]) -> list[Mix]:
    """Return what each of our joints is made of: names of a file's joints, and their shares.

    Args:
        spine: spine1, spine2, spine3, neck, head.
        arms: collar, shoulder, elbow, wrist, with ``*`` for the side.
        legs: hip, knee, ankle, foot, with ``*`` for the side.
    """
    mixes = [{name: 1.0} for name in legs] + [*arms]
    pairs = [
        [{name.replace("*", side): share for name, share in mix.items()} for side in SIDES]
        for mix in mixes
    ]
    hip, knee, ankle, foot, collar, shoulder, elbow, wrist = pairs
    return [
        {"Hips": 1.0}, *hip, spine[0], *knee, spine[1], *ankle, spine[2], *foot, spine[3],
        *collar, spine[4], *shoulder, *elbow, *wrist,
    ]  # fmt: skip


ARMS = ({"*Arm": 1.0}, {"*ForeArm": 1.0}, {"*Hand": 1.0})
LEGS = ("*UpLeg", "*Leg", "*Foot", "*ToeBase")
SKELETONS = {
    "cmu": _skeleton(
        [{"LowerBack": 0.5, "Spine": 0.5}, {"Spine": 1}, {"Spine1": 1}, {"Neck1": 1}, {"Head": 1}],
        [{"*Shoulder": 0.5, "*Arm": 0.5}, *ARMS],
        LEGS,
    ),
    "mixamo": _skeleton(
        [{"Spine": 1}, {"Spine1": 1}, {"Spine2": 1}, {"Neck": 1}, {"Head": 1}],
        [{"*Shoulder": 1}, *ARMS],
        LEGS,
    ),
    "chest": _skeleton(
        [{"Chest": 1}, {"Chest": 0.5, "Chest2": 0.5}, {"Chest2": 1}, {"Neck": 1}, {"Head": 1}],
        [{"*Collar": 0.5, "*Shoulder": 0.5}, {"*Shoulder": 1}, {"*Elbow": 1}, {"*Wrist": 1}],
        ["*Hip", "*Knee", "*Ankle", "*Ankle_end"],
    ),
}
"""Skeletons whose joints we know by name, the first that has all names is taken."""


class MotionFolder(FileFolder):
    """Motion of all files below a folder, as features at 20 frames per second.

    ``.npy`` files hold features ``(T, 263)`` as HumanML3D's ``new_joint_vecs``, or joints
    ``(T, 22, 3)`` in metres as its ``new_joints``; ``.bvh`` files one of ``SKELETONS``, scaled to
    one length of leg and put on the ground. Bone lengths stay those of the actor, where HumanML3D
    retargets all to one. Other files, motion that is not finite or shorter than a crop are left
    out, counted and named once. With ``train`` only the headers of feature files are read at
    construction; what then turns out to be unusable is replaced by the next good file.

    Args:
        root: the folder; searched to any depth, names with a leading dot left out.
        frames: of a crop; None gives whole files.
        train: crops at random places, mirrored at random; else from the beginning.
        split: ``"val"`` takes 1 file in 20 by a hash of its name, ``"train"`` the others.
        listing: a file in the folder with one stem per line, such as HumanML3D's ``train.txt``;
            only these are taken.
        only: patterns of file names to take; empty for all.
        exclude: patterns of file names to leave out.
        seed: of crops and mirrors.

    Shapes:
        item ``(263, frames)`` float32, see ``functional.motion``

    Raises:
        ConfigError: an unknown split or a number outside its range.
        DataError: the folder or the listing does not exist, or no motion is left.
    """

    noun = "motion"
    suffixes = (".npy", ".bvh")

    def __init__(
        self,
        root: str | Path,
        frames: int | None = 64,
        train: bool = False,
        split: Literal["all", "train", "val"] = "all",
        listing: str | None = None,
        only: Sequence[str] = (),
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if frames is not None and frames < 1:
            raise ConfigError(f"MotionFolder: expected 1 frame or more; got frames={frames}.")
        self.frames = frames
        self._kept: dict[str, Tensor] = {}  # what had to be converted
        stems = None if listing is None else _stems(Path(root).expanduser() / listing)
        super().__init__(root, SIGNAL, train, seed, split, only, exclude, stems)

    def why_not(self, name: str) -> str | None:
        """Return why a file cannot be used, or None; keep what was converted."""
        path = self.root / name
        if self.train and path.suffix.lower() == ".npy":
            length = _feature_rows(path)
            if length is not None:
                return self._too_short(length)
        read = self._features(name)
        if isinstance(read, str):
            return read
        if path.suffix.lower() == ".bvh":
            self._kept[name] = read
        return None

    def _too_short(self, length: int) -> str | None:
        short = self.frames is not None and length < self.frames
        return f"{length} frames, fewer than a crop" if short else None

    def read(self, name: str, generator: np.random.Generator | None) -> Tensor | str:
        """Return a crop ``(263, frames)`` float32 of a file, or why it cannot be used."""
        features = self._features(name)
        if isinstance(features, str):
            return features
        length, start = self.frames or len(features), 0
        if generator is not None:
            start = int(generator.integers(len(features) - length + 1))
            if generator.random() < 0.5:
                features = mirrored(features)
        return features[start : start + length].T.contiguous()

    def _features(self, name: str) -> Tensor | str:
        """Return the features ``(T, 263)`` of a file, or why it cannot be used."""
        found = self._kept[name] if name in self._kept else read_motion(self.root / name)
        return found if isinstance(found, str) else self._too_short(len(found)) or found


def read_motion(path: Path) -> Tensor | str:
    """Return the features ``(T, 263)`` float32 of a file, or why it cannot be used."""
    found = _array(path) if path.suffix.lower() == ".npy" else _bvh_joints(path)
    if isinstance(found, str):
        return found
    if not bool(found.isfinite().all()):
        return "numbers that are not finite"
    if found.ndim == 3:
        if len(found) < 2:
            return "fewer than 2 frames"
        found = features_from_joints(faced(found))
    low, high = SIGNAL.value_range
    if not len(found) or not low <= float(found.min()) <= float(found.max()) <= high:
        return f"no frame, or features outside {low:g} to {high:g}: not metres?"
    return found.float()


def _feature_rows(path: Path) -> int | None:
    """Return how many frames a file of features has by its header; None if it is no such file."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return len(array) if array.shape[1:] == (263,) and array.dtype.kind == "f" else None


def _array(path: Path) -> Tensor | str:
    """Return features or joints of a numpy file, or why there are none."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        return f"not readable ({str(error).splitlines()[0]:.60})"
    if array.dtype.kind != "f" or array.shape[1:] not in ((263,), (22, 3)):
        return f"{array.dtype} of shape {array.shape}; motion is (T, 263) or (T, 22, 3)"
    return torch.from_numpy(array.astype(np.float64))


def _bvh_joints(path: Path) -> Tensor | str:
    """Return joints ``(T, 22, 3)`` in metres at our rate of a BVH file, or why there are none."""
    motion = read_bvh(path)
    if isinstance(motion, str):
        return motion
    place = {name: motion.places[:, j] for j, name in enumerate(motion.names)}
    for skeleton in SKELETONS.values():
        if all(name in place for mix in skeleton for name in mix):
            break
    else:
        return f"none of the skeletons {', '.join(SKELETONS)}"
    joints = np.stack(
        [sum(share * place[name] for name, share in mix.items()) for mix in skeleton], axis=1
    )
    seconds = (len(joints) - 1) * motion.frame_time
    times = np.arange(int(seconds * FRAME_RATE + 1e-3) + 1) / (FRAME_RATE * motion.frame_time)
    before = np.minimum(times.astype(int), len(joints) - 1)
    after = np.minimum(before + 1, len(joints) - 1)
    share = (times - before)[:, None, None]
    joints = (1 - share) * joints[before] + share * joints[after]
    bones = joints[:, [4, 5, 7, 8]] - joints[:, [1, 2, 4, 5]]
    leg = float(np.linalg.norm(bones, axis=-1).mean(0).sum()) / 2
    return torch.from_numpy(joints * (LEG / max(leg, 1e-6)))


def _stems(path: Path) -> set[str]:
    """Return the lines of a listing."""
    if not path.is_file():
        raise DataError(
            f"MotionFolder: expected the listing '{path}'; got no such file. "
            "Set data.root to the folder that holds it."
        )
    return set(path.read_text().split())
