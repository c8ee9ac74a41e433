"""How far joints of a reconstructed motion are from where they were.

Joints are ``(B, T, J, 3)`` in metres, the first one the root, y up; numbers are per motion,
``(B,)`` float64 in millimetres unless they say otherwise.

Papers mean different things by MPJPE. ``mpjpe`` with ``align="root"`` is the one of MoMask and
T2M-GPT's reconstruction tables: positions against the root, mean over frames and joints, the root
itself among them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError, check_shape, unknown_name
from tokenizers_vq.functional.superposition import superposed

ALIGNS = ("none", "root", "rigid", "similarity")


def mpjpe(real: Tensor, fake: Tensor, align: str = "root") -> Tensor:
    """Return the mean distance of joints, over frames and joints.

    Args:
        real: joints ``(B, T, J, 3)``.
        fake: their reconstruction, of the same shape.
        align: what is taken away frame by frame before: ``"none"``, the root's place (``"root"``),
            place and turn of the whole body (``"rigid"``), or those and its size
            (``"similarity"``, PA-MPJPE).

    Raises:
        ShapeError: another rank, or two shapes.
        ConfigError: there is no such alignment.
    """
    real, fake = _pair(real, fake)
    if align not in ALIGNS:
        raise unknown_name("mpjpe align", align, ALIGNS)
    if align == "root":
        real, fake = real - real[..., :1, :], fake - fake[..., :1, :]
    elif align != "none":
        fake = superposed(fake, real, scale=align == "similarity")
    return 1000 * _length(real - fake).mean((1, 2))


def root_error(real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean distance of the root over frames: how far the path drifts."""
    real, fake = _pair(real, fake)
    return 1000 * _length((real - fake)[..., 0, :]).mean(1)


def acceleration_error(real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean distance of the joints' second differences, millimetres per frame squared.

    Raises:
        ShapeError: fewer than 3 frames.
    """
    real, fake = _pair(real, fake)
    if real.shape[1] < 3:
        raise ShapeError(
            f"acceleration_error: expected 3 frames or more; got {real.shape[1]}. "
            "Use longer motion."
        )
    return 1000 * _length(torch.diff(real - fake, n=2, dim=1)).mean((1, 2))


def foot_skate(
    joints: Tensor, feet: tuple[int, ...] = (10, 11), height: float = 0.05, speed: float = 0.0125
) -> Tensor:
    """Return the share of frames in which a foot that is on the ground slides, ``(B,)``.

    Args:
        joints: ``(B, T, J, 3)``.
        feet: which joints touch the ground.
        height: metres above the lowest foot of the whole motion below which a foot is down.
        speed: metres per frame along the ground above which it slides; 0.25 m/s at 20 per second.

    Raises:
        ShapeError: another rank.
    """
    check_shape(joints, "B T J 3", "foot_skate", "Joints are in metres, y up.")
    at = joints[:, :, list(feet)].double()
    low = at[..., 1] - at[..., 1].amin((1, 2), keepdim=True) < height
    moves = _length(torch.diff(at[..., ::2], dim=1)) > speed
    return (low[:, 1:] & low[:, :-1] & moves).any(-1).double().mean(1)


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length


def _pair(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    check_shape(real, "B T J 3", "metrics.joints", "Joints are in metres, y up.")
    if real.shape != fake.shape:
        raise ShapeError(
            f"metrics.joints: expected two motions of one shape; got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}. Crop the longer one."
        )
    return real.double(), fake.double()
