"""A protein's backbone from the torsions of its bonds, and the torsions of a backbone.

Angles are radians: phi about N-CA, psi about CA-C, omega about C-N, of which the last is near pi.
"""

import math

import torch
from torch import Tensor

from tokenizers_vq.functional.frames import (
    C_N,
    C_N_CA,
    CA_C,
    CA_C_N,
    IDEAL,
    N_CA,
    N_CA_C,
)

# (phi, psi) in degrees
HELIX = (-57.8, -47.0)
STRAND = (-120.0, 130.0)


def backbone_from_torsions(phi: Tensor, psi: Tensor, omega: Tensor | None = None) -> Tensor:
    """Return the atoms ``(..., T, 3, 3)`` of a chain in ideal geometry, which begins at the origin.

    Args:
        phi: ``(..., T)``; the first one changes nothing.
        psi: ``(..., T)``; the last one changes nothing.
        omega: ``(..., T)``, of the bond behind each residue; None for pi.

    Reference:
        Parsons et al., Practical Conversion from Torsion Space to Cartesian Space for In Silico
        Protein Synthesis, 2005, https://doi.org/10.1002/jcc.20237 (NeRF).
    """
    omega = torch.full_like(phi, math.pi) if omega is None else omega
    first = phi.new_tensor(IDEAL)
    atoms = [atom.expand(*phi.shape[:-1], 3) for atom in first.unbind(0)]
    for i in range(1, phi.shape[-1]):
        atoms.append(_placed(atoms, C_N, CA_C_N, psi[..., i - 1]))
        atoms.append(_placed(atoms, N_CA, C_N_CA, omega[..., i - 1]))
        atoms.append(_placed(atoms, CA_C, N_CA_C, phi[..., i]))
    chain = torch.stack(atoms, dim=-2)
    return chain.reshape(*phi.shape, 3, 3)


def torsions_of(atoms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return phi, psi and omega ``(..., T)`` of atoms ``(..., T, 3, 3)``.

    The first phi, the last psi and the last omega are 0.
    """
    (n, ca, c), (n_next, ca_next, c_next) = (
        part.unbind(-2) for part in (atoms[..., :-1, :, :], atoms[..., 1:, :, :])
    )
    phi = _torsion(c, n_next, ca_next, c_next)
    psi = _torsion(n, ca, c, n_next)
    omega = _torsion(ca, c, n_next, ca_next)
    pad = torch.nn.functional.pad
    return pad(phi, (1, 0)), pad(psi, (0, 1)), pad(omega, (0, 1))


def _placed(atoms: list[Tensor], length: float, angle: float, torsion: Tensor) -> Tensor:
    """Return the atom ``(..., 3)`` behind the last three."""
    a, b, c = atoms[-3:]
    along = _unit(c - b)
    normal = _unit(torch.linalg.cross(b - a, along, dim=-1))
    across = torch.linalg.cross(normal, along, dim=-1)
    x, y = -length * math.cos(angle), length * math.sin(angle)
    sideways = across * torsion.cos()[..., None] + normal * torsion.sin()[..., None]
    placed: Tensor = c + x * along + y * sideways
    return placed


def _torsion(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    axis = _unit(c - b)
    v, w = (x - (x * axis).sum(-1, keepdim=True) * axis for x in (a - b, d - c))
    return torch.atan2((torch.linalg.cross(axis, v, dim=-1) * w).sum(-1), (v * w).sum(-1))


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.square().sum(-1, keepdim=True).clamp(min=1e-16).sqrt()
