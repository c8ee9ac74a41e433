"""BVH files: a skeleton, and per frame the angles of its joints, as joints in space.

The format: a tree of joints with offsets and channels, then one line of numbers per frame. Angles
are degrees, applied in the order of their channels, the first outermost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

AXES = {"X": 0, "Y": 1, "Z": 2}


@dataclass
class Skeleton:
    """The tree of a BVH file.

    Attributes:
        names: of the joints, parents first; an end site is called ``<joint>_end``.
        parents: index of each joint's parent, -1 for the root.
        offsets: ``(3,)`` of each joint in its parent's frame.
        channels: names of each joint's channels, as ``Xposition`` and ``Zrotation``.
    """

    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Motion:
    """What a BVH file holds.

    Attributes:
        names: of the joints, without what is in front of a colon.
        places: ``(T, J, 3)`` float64, in the units of the file.
        frame_time: seconds.
    """

    names: list[str]
    places: np.ndarray
    frame_time: float


def read_bvh(path: Path) -> Motion | str:
    """Return what a BVH file holds, or why it cannot be used."""
    try:
        head, _, tail = path.read_text(encoding="utf-8-sig").partition("MOTION")
        skeleton = _skeleton(head.split())
        found = re.match(r"\s*Frames:\s*(\d+)\s*Frame Time:\s*([\d.eE+-]+)", tail)
        if found is None or not skeleton.names:
            return "not a BVH file"
        rows = np.array(tail[found.end() :].split(), dtype=np.float64)
        width = sum(map(len, skeleton.channels))
        rows = rows.reshape(-1, width)
        places = _places(skeleton, rows)
    except (OSError, ValueError, IndexError, KeyError) as error:
        return f"not readable ({str(error).splitlines()[0]:.60})"
    if len(rows) != int(found.group(1)) or not len(rows) or not float(found.group(2)) > 0:
        return f"{len(rows)} frames where its header says {found.group(1)}"
    if not np.isfinite(rows).all():
        return "numbers that are not finite"
    names = [name.rpartition(":")[2] for name in skeleton.names]
    return Motion(names, places, float(found.group(2)))


def _skeleton(words: list[str]) -> Skeleton:
    """Return the tree that the words of a header describe."""
    tree, open_joints, at = Skeleton(), [-1], 0
    while at < len(words):
        word = words[at]
        if word in ("ROOT", "JOINT", "End"):
            parent = open_joints[-1]
            name = words[at + 1] if word != "End" else f"{tree.names[parent]}_end"
            tree.names.append(name)
            tree.parents.append(parent)
            tree.offsets.append([0.0, 0.0, 0.0])
            tree.channels.append([])
            at += 2
        elif word == "{":
            open_joints.append(len(tree.names) - 1)
            at += 1
        elif word == "}":
            open_joints.pop()
            at += 1
        elif word == "OFFSET":
            tree.offsets[-1] = [float(number) for number in words[at + 1 : at + 4]]
            at += 4
        elif word == "CHANNELS":
            count = int(words[at + 1])
            tree.channels[-1] = words[at + 2 : at + 2 + count]
            at += 2 + count
        else:
            at += 1
    return tree


def _places(tree: Skeleton, rows: np.ndarray) -> np.ndarray:
    """Return ``(T, J, 3)`` of the numbers ``(T, channels)``: forward kinematics."""
    places = np.zeros((len(rows), len(tree.names), 3))
    turns: list[np.ndarray] = []
    at = 0
    for joint, parent in enumerate(tree.parents):
        move = np.tile(np.array(tree.offsets[joint]), (len(rows), 1))
        turn = np.tile(np.eye(3), (len(rows), 1, 1))
        for channel in tree.channels[joint]:
            axis = AXES[channel[0].upper()]
            if channel.lower().endswith("position"):
                move[:, axis] = rows[:, at]
            else:
                turn = turn @ _about(axis, np.radians(rows[:, at]))
            at += 1
        if parent < 0:
            places[:, joint] = move
        else:
            places[:, joint] = places[:, parent] + np.einsum("tij,tj->ti", turns[parent], move)
            turn = turns[parent] @ turn
        turns.append(turn)
    return places


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    """Return rotations ``(T, 3, 3)`` about a coordinate axis."""
    turn = np.zeros((len(angle), 3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turn[:, axis, axis] = 1
    turn[:, a, a] = turn[:, b, b] = np.cos(angle)
    turn[:, b, a] = np.sin(angle)
    turn[:, a, b] = -turn[:, b, a]
    return turn
