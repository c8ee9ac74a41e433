import pytest
import torch

from tokenizers_vq.data.synthetic_protein import SyntheticProtein
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.frames import atoms_of, is_present


def test_proteins_are_deterministic_different_and_centred():
    data, again = (SyntheticProtein(n=4, residues=30, missing=0, seed=1) for _ in range(2))
    items = list(data)
    assert all(x.shape == (9, 30) and x.dtype == torch.float32 for x in items)
    assert all(torch.equal(x, again[5, i]) for i, x in enumerate(items))
    assert len({x.numpy().tobytes() for x in items}) == 4
    assert all(atoms_of(x)[:, 1].mean(0).abs().max() < 1e-4 for x in items)
    assert data.sha256() == again.sha256() != SyntheticProtein(n=4, residues=30).sha256()


def test_neighbours_are_a_peptide_apart():
    for x in SyntheticProtein(n=4, residues=30, missing=0):
        ca = atoms_of(x)[:, 1]
        assert (ca[1:] - ca[:-1]).norm(dim=-1).sub(3.8).abs().max() < 0.1


def test_runs_of_one_to_four_are_missing_where_asked():
    counts = []
    for x in SyntheticProtein(n=40, residues=30, missing=0.5):
        gone = torch.where(~is_present(atoms_of(x)))[0]
        counts.append(len(gone))
        assert len(gone) < 5
        assert (gone.diff() == 1).all()
    assert 10 < sum(count > 0 for count in counts) < 30


def test_an_empty_set_is_an_error():
    with pytest.raises(ConfigError) as error:
        SyntheticProtein(residues=0)
    assert str(error.value) == (
        "SyntheticProtein: expected n and residues of 1 or more and missing of 0 to 1; got n=256, "
        "residues=0, missing=0.2."
    )
