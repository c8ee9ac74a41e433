import math

import torch

from tokenizers_vq.functional.frames import C_N, C_N_CA, CA_C_N
from tokenizers_vq.functional.torsions import HELIX, STRAND, backbone_from_torsions, torsions_of

GENERATOR = torch.Generator().manual_seed(0)


def chain(pair, length=30):
    phi, psi = (torch.full((length,), a, dtype=torch.float64).deg2rad() for a in pair)
    return backbone_from_torsions(phi, psi)


def angle(a, b, c):
    u, v = a - b, c - b
    return torch.acos((u * v).sum(-1) / u.norm(dim=-1) / v.norm(dim=-1))


def test_torsions_come_back():
    phi, psi, omega = (torch.rand(3, 2, 12, generator=GENERATOR, dtype=torch.float64) - 0.5) * 6.2
    found = torsions_of(backbone_from_torsions(phi, psi, omega))
    torch.testing.assert_close(found[0][:, 1:], phi[:, 1:])
    torch.testing.assert_close(found[1][:, :-1], psi[:, :-1])
    torch.testing.assert_close(found[2][:, :-1], omega[:, :-1])


def test_bonds_and_angles_are_ideal():
    n, ca, c = chain(HELIX).unbind(-2)
    assert (n[1:] - c[:-1]).norm(dim=-1).sub(C_N).abs().max() < 1e-9
    assert angle(ca[:-1], c[:-1], n[1:]).sub(CA_C_N).abs().max() < 1e-9
    assert angle(c[:-1], n[1:], ca[1:]).sub(C_N_CA).abs().max() < 1e-9
    # a trans peptide of these bonds and angles: CA to CA is 3.80 to 3.82
    assert (ca[1:] - ca[:-1]).norm(dim=-1).sub(3.80).abs().max() < 0.02


def test_an_alpha_helix_has_3_6_residues_a_turn_and_rises_1_5():
    ca = chain(HELIX)[:, 1]
    # neighbouring second differences of a helix are turned about its axis by 360 / 3.6 degrees
    second = ca[2:] - 2 * ca[1:-1] + ca[:-2]
    second = second / second.norm(dim=-1, keepdim=True)
    per_turn = 2 * math.pi / float(torch.acos((second[1:] * second[:-1]).sum(-1)).mean())
    axis = torch.linalg.cross(second[0], second[1], dim=-1)
    rise = float((ca[1] - ca[0]) @ (axis / axis.norm()))
    assert abs(per_turn - 3.6) < 0.1
    assert abs(rise - 1.5) < 0.06  # positive: the helix is right-handed


def test_a_strand_is_nearly_stretched():
    ca = chain(STRAND)[:, 1]
    assert 3.1 < float((ca[21] - ca[1]).norm()) / 20 < 3.5


def test_the_first_residue_is_in_its_own_frame():
    atoms = chain(HELIX, 1)
    torch.testing.assert_close(atoms[0, 1], torch.zeros(3, dtype=torch.float64))
    assert atoms[0, 2, 0] > 1.5
    assert atoms[0, 0, 1] > 1.3
