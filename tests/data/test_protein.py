"""Structures written by the reader's own writer, and text written by hand."""

import builtins

import numpy as np
import pytest
import torch
from biotite.structure import Atom, array
from biotite.structure.io import pdbx

from tokenizers_vq.data.protein import ProteinFolder, crop_of, read_chain
from tokenizers_vq.errors import ConfigError, DataError, MissingExtraError
from tokenizers_vq.functional.frames import atoms_of, is_present
from tokenizers_vq.functional.torsions import HELIX, backbone_from_torsions

LENGTH = 30


def helix(length=LENGTH):
    phi, psi = (torch.full((length,), a, dtype=torch.float64).deg2rad() for a in HELIX)
    return backbone_from_torsions(phi, psi).numpy()


def pdb(atoms, chain="A", numbers=None, leave=(), record="ATOM  ", residue="ALA"):
    """Lines of a PDB file, its columns as the format has them; ``leave`` names (residue, atom)."""
    lines, serial = [], 1
    for i, places in enumerate(atoms):
        number = i + 1 if numbers is None else numbers[i]
        for name, (x, y, z) in zip(("N", "CA", "C"), places, strict=True):
            if (i, name) not in leave:
                lines.append(
                    f"{record}{serial:5d}  {name:<3s} {residue} {chain}{number:4d}    "
                    f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           {name[0]}"
                )
                serial += 1
    return "\n".join([*lines, "TER", ""])


def test_a_pdb_file_by_hand(tmp_path):
    atoms = helix() + 50
    water = pdb(atoms[:1] + 9, record="HETATM", residue="HOH", numbers=[900])
    text = pdb(atoms, "A", leave={(3, "C")}) + pdb(atoms[:10] + 5, "B") + water
    path = tmp_path / "it.pdb"
    path.write_text(f"MODEL        1\n{text}ENDMDL\nMODEL        2\n{text}ENDMDL\n")
    found = read_chain(path)
    assert found.shape == (LENGTH, 3, 3)
    expected = torch.from_numpy(atoms)
    expected[3] = torch.nan
    torch.testing.assert_close(found, expected, atol=6e-4, rtol=0, equal_nan=True)


def test_gaps_of_the_numbering_are_missing_residues(tmp_path):
    path = tmp_path / "it.pdb"
    numbers = [-2, -1, 0, 1, 5, 6, 6 + 500, *range(507, 530)]
    path.write_text(pdb(helix(), numbers=numbers))
    found = read_chain(path)
    there = found[:, 0, 0].isfinite()
    assert there.sum() == LENGTH
    # 3 residues from 1 to 5, 32 for the jump that is too wide to be meant
    assert torch.where(~there)[0].tolist() == [4, 5, 6, *range(9, 41)]


@pytest.mark.parametrize("suffix", ["cif", "bcif"])
def test_mmcif_and_binarycif_hold_the_same(tmp_path, suffix):
    atoms = helix()
    made = array([
        Atom(place, chain_id="A", res_id=i + 1, res_name="GLY", atom_name=name, element=name[0])
        for i, residue in enumerate(atoms)
        for name, place in zip(("N", "CA", "C"), residue, strict=True)
    ])  # fmt: skip
    file = pdbx.CIFFile() if suffix == "cif" else pdbx.BinaryCIFFile()
    pdbx.set_structure(file, made)
    file.write(str(tmp_path / f"it.{suffix}"))
    found = read_chain(tmp_path / f"it.{suffix}")
    torch.testing.assert_close(found, torch.from_numpy(atoms), atol=1e-4, rtol=0)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.pdb").write_text(pdb(helix() + 100))
    (tmp_path / "b.ent").write_text(pdb(helix(), leave={(2, "N")}))
    return tmp_path


def test_items_are_centred_and_completed(root):
    data = ProteinFolder(root, residues=40)
    assert data.ids == ["b.ent", "deep/a.pdb"]
    for x, missing in zip(data, ([2], []), strict=True):
        assert x.shape == (9, 40)
        atoms = atoms_of(x)
        there = is_present(atoms)
        assert torch.where(~there)[0].tolist() == [*missing, *range(30, 40)]
        assert x[:, ~there].abs().max() == 0
        assert atoms[there, 1].mean(0).abs().max() < 1e-5
    whole = ProteinFolder(root, residues=None)[1]
    assert whole.shape == (9, LENGTH)
    assert data.sha256() == ProteinFolder(root).sha256()


def test_crops_are_drawn_by_epoch(root):
    data = ProteinFolder(root, residues=8, train=True, seed=1)
    crops = [data[epoch, 1] for epoch in range(20)]
    assert all(torch.equal(x, data[epoch, 1]) for epoch, x in enumerate(crops))
    assert len({x.numpy().tobytes() for x in crops}) > 8
    first = torch.from_numpy(np.round(helix() + 100, 3))
    windows = torch.stack([crop_of(first, start, 8) for start in range(LENGTH - 7)])
    assert all((windows - x).abs().amax((1, 2)).min() < 1e-4 for x in crops)


def test_what_cannot_be_used_is_left_out_and_named(root):
    (root / "water.pdb").write_text(pdb(helix(1), record="HETATM", residue="HOH"))
    (root / "short.pdb").write_text(pdb(helix(5)))
    (root / "broken.bcif").write_bytes(b"nothing")
    data = ProteinFolder(root)
    assert len(data) == 2
    reasons = data.skipped
    assert reasons.pop("broken.bcif").startswith("not readable (")
    assert reasons == {
        "water.pdb": "no protein",
        "short.pdb": "5 residues in its first chain, fewer than 20",
    }
    assert ProteinFolder(root, only=["deep/*"]).ids == ["deep/a.pdb"]
    assert ProteinFolder(root, exclude=["deep/*"]).ids == ["b.ent"]


def test_mistakes_are_named(root, monkeypatch):
    with pytest.raises(ConfigError, match="expected residues and least of 1 or more; got resid"):
        ProteinFolder(root, residues=0)
    with pytest.raises(DataError, match="expected a folder; got '/nowhere'"):
        ProteinFolder("/nowhere")
    with pytest.raises(DataError, match="expected at least one usable structure"):
        ProteinFolder(root, only=["*.cif"])
    real = builtins.__import__

    def without(name, *rest):
        if name == "biotite":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError) as error:
        ProteinFolder(root)
    assert str(error.value) == (
        "ProteinFolder: expected the package biotite; got none. "
        'Run pip install "tokenizers_vq[protein]".'
    )
