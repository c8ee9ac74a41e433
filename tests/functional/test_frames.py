"""Frames of residues by hand, and errors that do not see where a protein lies."""

import math

import pytest
import torch

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional import frames
from tokenizers_vq.functional.rotations import from_six


def random_frames(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    six = torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
    return from_six(six), 5 * torch.randn(*shape, 3, generator=generator, dtype=torch.float64)


def test_a_residue_by_hand():
    # CA at 1 2 3, C 2 along z, N 1 along y and 1 along z: axes z, y, and z x y = -x
    atoms = torch.tensor([[1.0, 3, 4], [1, 2, 3], [1, 2, 5]])
    rotation, place = frames.frames_of(atoms)
    assert place.tolist() == [1, 2, 3]
    torch.testing.assert_close(rotation, torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]))


def test_frames_come_back_from_their_atoms():
    rotations, places = random_frames(2, 7)
    atoms = frames.backbone_of(rotations, places)
    again = frames.frames_of(atoms)
    torch.testing.assert_close(again[0], rotations)
    torch.testing.assert_close(again[1], places)
    n, ca, c = atoms.unbind(-2)
    assert (n - ca).norm(dim=-1).sub(1.458).abs().max() < 1e-9
    assert (c - ca).norm(dim=-1).sub(1.525).abs().max() < 1e-9
    angle = torch.acos(((n - ca) * (c - ca)).sum(-1) / 1.458 / 1.525)
    assert angle.sub(math.radians(111)).abs().max() < 1e-9


def test_signals_are_atoms_channel_by_channel():
    signal = torch.arange(18.0).view(9, 2)
    atoms = frames.atoms_of(signal)
    assert atoms[1].tolist() == [[1, 3, 5], [7, 9, 11], [13, 15, 17]]
    assert torch.equal(frames.signal_of(atoms), signal)
    with pytest.raises(ShapeError, match=r"atoms_of: expected shape \(\*batch, 9, T\)"):
        frames.atoms_of(torch.zeros(8, 2))


def test_residues_at_one_point_are_missing():
    atoms = frames.backbone_of(*random_frames(3))
    atoms[1] = atoms[1, 1]
    assert frames.is_present(atoms).tolist() == [True, False, True]


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_chained_frames_are_the_products_one_by_one(length):
    rotations, places = random_frames(2, length)
    found = frames.chained(rotations, places)
    for item in range(2):
        r, t = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for i in range(length):
            r, t = r @ rotations[item, i], r @ places[item, i] + t
            torch.testing.assert_close(found[0][item, i], r)
            torch.testing.assert_close(found[1][item, i], t)


def backbone(seed, length=9):
    return frames.backbone_of(*random_frames(length, seed=seed))


def test_the_error_of_two_residues_by_hand():
    # frames along the axes at 0 and at 3 on x; in the other chain the second one is at 4
    one = torch.eye(3).expand(2, 3, 3)
    real = frames.backbone_of(one, torch.tensor([[0.0, 0, 0], [3, 0, 0]]))
    fake = frames.backbone_of(one, torch.tensor([[0.0, 0, 0], [4, 0, 0]]))
    # each sees itself where it is, and the other one 1 off: (0 + 1 + 1 + 0) / 4 / 10
    assert frames.frame_error(real, fake).item() == pytest.approx(0.05, abs=1e-5)
    far = frames.backbone_of(one, torch.tensor([[0.0, 0, 0], [99, 0, 0]]))
    assert frames.frame_error(real, far).item() == pytest.approx(0.5, abs=1e-5)  # cut at 10
    assert frames.frame_error(real, far, clamp=None).item() == pytest.approx(4.8, abs=1e-5)


def test_the_error_of_moved_copies_is_nothing_and_of_mirrors_large():
    real = backbone(1)
    turn, shift = random_frames(1, seed=5)
    moved = real @ turn[0].mT + shift[0]
    assert frames.frame_error(real, moved).item() == pytest.approx(1e-5, rel=1e-3)  # sqrt(eps) / 10
    mirror = real * torch.tensor([-1.0, 1, 1])
    assert frames.frame_error(real, mirror).item() > 0.1
    other = backbone(2)
    again = other @ turn[0].mT + shift[0]
    expected = frames.frame_error(real, other)
    torch.testing.assert_close(frames.frame_error(moved, again), expected)


def test_missing_residues_do_not_count():
    real, fake = backbone(1), backbone(2)
    expected = frames.frame_error(real[:6], fake[:6])
    real[6:] = 0
    torch.testing.assert_close(frames.frame_error(real, fake), expected)
    assert frames.frame_error(0 * real, fake).item() == 0


def test_gradients_are_finite_at_equal_chains_and_missing_residues():
    real = backbone(1)
    fake = real.clone().requires_grad_()
    real[2] = 0
    frames.frame_error(real, fake).backward()
    assert fake.grad.isfinite().all()


def test_mistakes_are_named():
    with pytest.raises(ShapeError, match="expected two backbones of one shape"):
        frames.frame_error(torch.zeros(3, 3, 3), torch.zeros(4, 3, 3))
    with pytest.raises(ConfigError, match="expected clamp and unit above 0; got 0 and 10"):
        frames.frame_error(torch.zeros(3, 3, 3), torch.zeros(3, 3, 3), clamp=0)
