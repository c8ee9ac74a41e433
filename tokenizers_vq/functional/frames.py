"""Frames of a protein's residues: from atoms and back, one after the other, and their errors.

Atoms of the backbone are ``(..., T, 3, 3)`` in angstroms: N, CA and C of each residue. A frame is a
rotation ``(..., T, 3, 3)`` and a place ``(..., T, 3)``: a point p of the residue is at ``R p + t``.
The CA is the origin, the C is on the first axis, the N in the plane of the first two. A residue
whose atoms lie at one point is missing; its frame is finite and means nothing.

Reference:
    Jumper et al., Highly Accurate Protein Structure Prediction with AlphaFold, 2021,
    https://doi.org/10.1038/s41586-021-03819-2, supplement, algorithms 21 and 28.
"""

import math

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, ShapeError, check_shape
from tokenizers_vq.functional.rotations import orthonormal, turned

N_CA, CA_C, C_N = 1.458, 1.525, 1.329
"""Lengths of the bonds of a chain, angstroms (Engh and Huber, 1991)."""
N_CA_C, CA_C_N, C_N_CA = (math.radians(degrees) for degrees in (111.0, 117.2, 121.7))
"""Angles of a chain, radians (the same)."""
IDEAL = (
    (N_CA * math.cos(N_CA_C), N_CA * math.sin(N_CA_C), 0.0), (0.0, 0.0, 0.0), (CA_C, 0.0, 0.0),
)  # fmt: skip
"""Where N, CA and C are in their frame."""
LEAST = 0.1  # angstroms from CA to C, below which a residue is missing


def atoms_of(signal: Tensor) -> Tensor:
    """Return atoms ``(..., T, 3, 3)`` of signals ``(..., 9, T)``: N x y z, CA x y z, C x y z.

    Raises:
        ShapeError: another number of channels.
    """
    check_shape(signal, "*batch 9 T", "atoms_of", "Channels are x, y, z of N, CA and C.")
    rows = signal.mT
    return rows.reshape(*rows.shape[:-1], 3, 3)


def signal_of(atoms: Tensor) -> Tensor:
    """Return signals ``(..., 9, T)`` of atoms ``(..., T, 3, 3)``."""
    return atoms.flatten(-2).mT


def is_present(atoms: Tensor) -> Tensor:
    """Return which residues are there, ``(..., T)`` bool."""
    return (atoms[..., 2, :] - atoms[..., 1, :]).square().sum(-1) > LEAST**2


def frames_of(atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Return rotations ``(..., T, 3, 3)`` and places ``(..., T, 3)`` of atoms ``(..., T, 3, 3)``.

    Raises:
        ShapeError: another number of atoms.
    """
    check_shape(atoms, "*batch 3 3", "frames_of", "Atoms are N, CA and C.")
    n, ca, c = atoms.unbind(-2)
    return orthonormal(c - ca, n - ca), ca


def backbone_of(rotations: Tensor, places: Tensor) -> Tensor:
    """Return the atoms ``(..., T, 3, 3)`` of frames, in ideal geometry."""
    atoms = rotations.new_tensor(IDEAL) @ rotations.mT
    return atoms + places[..., None, :]


def chained(rotations: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frames of which each is given against the one before it, in log2(T) steps.

    Args:
        rotations: ``(..., T, 3, 3)``.
        places: ``(..., T, 3)``.

    Returns:
        The products of all frames up to each, of the same shapes.

    Reference:
        Hillis and Steele, Data Parallel Algorithms, 1986, section "sum of an array" (scan).
    """
    step, length = 1, places.shape[-2]
    while step < length:
        before_r, before_t = rotations[..., :-step, :, :], places[..., :-step, :]
        moved = turned(before_r, places[..., step:, :]) + before_t
        places = torch.cat([places[..., :step, :], moved], dim=-2)
        both = before_r @ rotations[..., step:, :, :]
        rotations = torch.cat([rotations[..., :step, :, :], both], dim=-3)
        step *= 2
    return rotations, places


def frame_error(
    real: Tensor,
    fake: Tensor,
    clamp: float | None = 10.0,
    unit: float = 10.0,
    reach: int | None = None,
    eps: float = 1e-8,
) -> Tensor:
    """Return the frame aligned point error (FAPE) of every item, ``(...)``.

    Every CA is seen from every frame; distances of where it is seen are cut at ``clamp``, divided
    by ``unit`` and averaged over pairs of residues that are there in ``real``. It is the same for
    moved copies and large for mirror images.

    Args:
        real: atoms ``(..., T, 3, 3)``.
        fake: their reconstruction.
        clamp: angstroms; None for no cut.
        unit: angstroms.
        reach: residues along the chain between the two of a pair, at most; None for all pairs.
        eps: added to squared distances, angstroms squared.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: a clamp or unit that is not above 0.
    """
    if real.shape != fake.shape:
        raise ShapeError(
            f"frame_error: expected two backbones of one shape; got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}. Crop the longer one."
        )
    if unit <= 0 or (clamp is not None and clamp <= 0):
        raise ConfigError(
            f"frame_error: expected clamp and unit above 0; got {clamp} and {unit}. Use 10."
        )
    seen = [_seen(*frames_of(atoms)) for atoms in (real, fake)]
    distance = ((seen[0] - seen[1]).square().sum(-1) + eps).sqrt()  # (..., T, T)
    if clamp is not None:
        distance = distance.clamp(max=clamp)
    there = is_present(real)
    pairs = (there[..., :, None] & there[..., None, :]).to(distance)
    if reach is not None:
        pairs = pairs.tril(reach).triu(-reach)
    total = (distance * pairs).sum((-1, -2)) / unit
    return total / pairs.sum((-1, -2)).clamp(min=1)


def _seen(rotations: Tensor, places: Tensor) -> Tensor:
    """Return ``(..., T, T, 3)``: where frame i sees place j."""
    apart = places[..., None, :, :] - places[..., :, None, :]
    return apart @ rotations
