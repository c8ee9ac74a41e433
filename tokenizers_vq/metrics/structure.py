"""How well the CA trace of a reconstructed protein fits the real one.

Traces are ``(T, 3)`` in angstroms, residues paired by position; all numbers are of one chain. RMSD
and TM-score never take a mirror image for the same; lDDT does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError, check_shape
from tokenizers_vq.functional.superposition import superposed

ROUNDS = 60
SEEDS = 24  # fragments of each length from which the search for TM begins
STEPS = (0.5, 1.0, 2.0, 4.0)


def rmsd(real: Tensor, fake: Tensor, there: Tensor | None = None) -> float:
    """Return the root of the mean squared distance after the best superposition, angstroms.

    Args:
        real: ``(T, 3)``.
        fake: ``(T, 3)``.
        there: ``(T,)`` bool, which residues count; None for all.

    Raises:
        ShapeError: two shapes, or no residue.
    """
    real, fake = _pair(real, fake, there)
    return float((superposed(fake, real) - real).square().sum(-1).mean().sqrt())


def tm_score(real: Tensor, fake: Tensor, there: Tensor | None = None) -> float:
    """Return the TM-score, 0 to 1: at the superposition that makes it largest.

    ``mean 1 / (1 + (d / d0)^2)`` with d0 of the real chain's length. The search begins at the
    superpositions of fragments of all, half, a quarter ... of the chain and climbs from each by
    superposing with weights ``1 / (1 + (d / d0)^2)^2``, which never lowers the score.

    Args:
        real: ``(T, 3)``.
        fake: ``(T, 3)``.
        there: as for ``rmsd``.

    Raises:
        ShapeError: two shapes, or no residue.

    Reference:
        Zhang and Skolnick, Scoring Function for Automated Assessment of Protein Structure Template
        Quality, 2004, https://doi.org/10.1002/prot.20264, eq. 1-5. The climb is ours: the score is
        concave in d^2, so the weights are the slopes of a lower bound.
    """
    real, fake = _pair(real, fake, there)
    length = len(real)
    d0 = scale_of(length)
    weights = _fragments(length)  # (S, T)
    p, q = (x.expand(len(weights), -1, -1) for x in (fake, real))
    score = torch.zeros(len(weights), dtype=torch.float64)
    for _ in range(ROUNDS):
        near = 1 / (1 + (superposed(p, q, weights) - q).square().sum(-1) / d0**2)
        climbed, score = near.mean(-1) - score, near.mean(-1)
        if climbed.max() < 1e-7:
            break
        weights = near.square()
    return float(score.max())


def scale_of(length: int) -> float:
    """Return d0 of chains of that length, angstroms; at least 0.5."""
    return max(0.5, 1.24 * math.cbrt(max(length - 15, 0)) - 1.8)


def lddt(real: Tensor, fake: Tensor, there: Tensor | None = None, cutoff: float = 15.0) -> float:
    """Return the share of distances that are kept, 0 to 1, without any superposition.

    Of all pairs closer than ``cutoff`` in the real chain, how many distances differ by less than
    0.5, 1, 2 and 4 angstroms, the mean of the four; 1 without such pairs. A mirror image keeps all
    its distances: look at another number too.

    Args:
        real: ``(T, 3)``.
        fake: ``(T, 3)``.
        there: as for ``rmsd``.
        cutoff: angstroms.

    Raises:
        ShapeError: two shapes, or no residue.

    Reference:
        Mariani et al., lDDT, 2013, https://doi.org/10.1093/bioinformatics/btt473, section 2.
    """
    real, fake = _pair(real, fake, there)
    apart = torch.cdist(real, real)
    error = (apart - torch.cdist(fake, fake)).abs()
    pairs = (apart < cutoff) & ~torch.eye(len(real), dtype=torch.bool)
    kept = torch.stack([error < step for step in STEPS]).double().mean(0)
    return float(kept[pairs].mean()) if bool(pairs.any()) else 1.0


def _fragments(length: int) -> Tensor:
    """Return weights ``(S, T)`` float64: 1 inside of fragments, of halving lengths down to 4."""
    rows = []
    size = length
    while size >= min(4, length):
        count = min(length - size + 1, SEEDS)
        for start in torch.linspace(0, length - size, count).long().tolist():
            row = torch.zeros(length, dtype=torch.float64)
            row[start : start + size] = 1
            rows.append(row)
        size //= 2
    return torch.stack(rows)


def _pair(real: Tensor, fake: Tensor, there: Tensor | None) -> tuple[Tensor, Tensor]:
    check_shape(real, "T 3", "metrics.structure", "Traces are the CA atoms of one chain.")
    if real.shape != fake.shape:
        raise ShapeError(
            f"metrics.structure: expected two traces of one shape; got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}. Pair the residues first."
        )
    if there is not None:
        real, fake = real[there], fake[there]
    if not len(real):
        raise ShapeError("metrics.structure: expected at least 1 residue; got none. Leave it out.")
    return real.double(), fake.double()
