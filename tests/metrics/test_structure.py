"""Scores of traces: by hand, against the program of their authors, and what they must not see."""

import numpy as np
import pytest
import tmtools
import torch
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.functional.rotations import from_six
from tokenizers_vq.functional.torsions import HELIX, STRAND, backbone_from_torsions
from tokenizers_vq.metrics.structure import lddt, rmsd, scale_of, tm_score


def trace(length=60):
    """A helix, a bend and a strand."""
    half = length // 2
    pairs = torch.tensor([HELIX] * half + [(60.0, 45.0)] * 2 + [STRAND] * (length - half - 2))
    return backbone_from_torsions(*pairs.double().deg2rad().T)[:, 1]


def noisy(size, seed=0, length=60):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(length, 3, generator=generator, dtype=torch.float64)
    return trace(length) + size * noise


def moved(points):
    six = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return points @ from_six(six).mT + torch.tensor([30.0, -5, 8])


def test_a_stretched_stick_by_hand():
    real = torch.tensor([[-1.0, 0, 0], [1, 0, 0]])
    fake = torch.tensor([[0.0, 3, 0], [0, 7, 0]])
    assert rmsd(real, fake) == pytest.approx(1)  # each end is 1 away
    # the one distance is 2 off: below 4 only
    assert lddt(real, fake) == 0.25


def test_half_a_chain_that_is_far_away_by_hand():
    real = trace(40)
    fake = moved(real)
    fake[20:] += 1000
    # 20 of 40 on their places, each of the others worth 1 / (1 + (1000 sqrt(3) / d0)^2), about 1e-6
    assert tm_score(real, fake) == pytest.approx(0.5, abs=1e-4)
    wrong = moved(real)
    wrong[:] = wrong.mean(0)  # all at one point
    assert 0 < tm_score(real, wrong) < 0.2


def test_d0_of_published_lengths():
    assert scale_of(136) == pytest.approx(4.333148, abs=1e-6)
    assert scale_of(10) == 0.5


def test_half_a_millimetre_of_noise():
    # 0.5 angstrom per axis: about 0.5 sqrt(3) = 0.87
    values = [rmsd(trace(), noisy(0.5, seed)) for seed in range(5)]
    assert np.mean(values) == pytest.approx(0.87, abs=0.06)


@pytest.mark.parametrize("size", [0.0, 0.3, 1.0])
def test_the_score_is_that_of_its_authors_program(size):
    real, fake = trace(), moved(noisy(size))
    letters = "A" * len(real)
    theirs = tmtools.tm_align(real.numpy(), fake.numpy(), letters, letters).tm_norm_chain1
    assert tm_score(real, fake) == pytest.approx(theirs, abs=2e-3)
    assert tm_score(real, fake) >= theirs - 2e-4


def test_a_hinge_is_found_that_one_superposition_hides():
    real = trace()
    fake = real.clone()
    turn = from_six(torch.tensor([0.0, 1, 0, 0, 0, 1], dtype=torch.float64))
    fake[30:] = (real[30:] - real[30]) @ turn.mT + real[30]  # the second half turns away
    length = len(real)

    def score(numbers, start):
        turned = Rotation.from_rotvec(numbers[:3]).apply(fake.numpy() - fake[start].numpy())
        far = np.square(turned + numbers[3:] - real.numpy()).sum(1)
        return -np.mean(1 / (1 + far / scale_of(length) ** 2))

    starts = [(at, [0, 0, 0, *real[at]]) for at in (5, 15, 25)]
    best = max(-minimize(score, guess, at, "Nelder-Mead").fun for at, guess in starts)
    found = tm_score(real, fake)
    assert found >= best - 1e-3
    assert found > 0.5  # half of it fits


def test_moving_and_turning_changes_nothing():
    real, fake = trace(), noisy(1.0)
    for measure in (rmsd, tm_score, lddt):
        expected = measure(real, fake)
        assert measure(moved(real), fake) == pytest.approx(expected, abs=1e-5)
        assert measure(real, moved(fake)) == pytest.approx(expected, abs=1e-5)
    assert rmsd(real, moved(real)) < 1e-6
    assert tm_score(real, moved(real)) == pytest.approx(1)


def test_a_mirror_image_is_another_protein():
    real = trace()
    mirror = real * torch.tensor([-1.0, 1, 1])
    assert rmsd(real, mirror) > 1
    assert tm_score(real, mirror) < 0.9
    assert lddt(real, mirror) == 1  # as its documentation says


def test_missing_residues_do_not_count():
    real, fake = trace(), noisy(1.0)
    there = torch.ones(60, dtype=torch.bool)
    there[20:25] = False
    wild = fake.clone()
    wild[20:25] += 1000
    for measure in (rmsd, tm_score, lddt):
        assert measure(real, wild, there) == pytest.approx(measure(real[there], fake[there]))


def test_mistakes_are_named():
    with pytest.raises(ShapeError, match="expected two traces of one shape"):
        rmsd(trace(60), trace(50))
    with pytest.raises(ShapeError, match="expected at least 1 residue; got none"):
        tm_score(trace(), trace(), torch.zeros(60, dtype=torch.bool))
