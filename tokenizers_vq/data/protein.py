"""A folder of protein structures: PDB, mmCIF and BinaryCIF files, read through biotite."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.data.files import FileFolder
from tokenizers_vq.errors import ConfigError, MissingExtraError
from tokenizers_vq.functional.frames import signal_of
from tokenizers_vq.types import SignalSpec

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".bcif")
SIGNAL = SignalSpec("protein", channels=9, value_range=(-1000.0, 1000.0))
ATOMS = ("N", "CA", "C")
WIDEST = 33  # a jump of the numbering by more is one of so many residues


class ProteinFolder(FileFolder):
    """The first protein chain of all structures below a folder: the backbone of its first model.

    Residues that the numbering skips, and those without N, CA or C, are missing: their numbers are
    all zero. What was never in the numbering is not known to be missing. The mean of the CA atoms
    is the origin. All chains are held in memory.

    Args:
        root: the folder; searched to any depth, names with a leading dot left out.
        residues: of a crop; shorter chains are completed with missing residues. None gives whole
            chains.
        train: crops at random places; else from the beginning.
        split: ``"val"`` takes 1 file in 20 by a hash of its name, ``"train"`` the others. Proteins
            of one family fall on both sides: choose with ``only`` and ``exclude`` where that
            matters.
        least: residues there are in a chain that is used.
        only: patterns of file names to take; empty for all.
        exclude: patterns of file names to leave out.
        seed: of crops.

    Shapes:
        item ``(9, residues)`` float32 in angstroms, see ``functional.frames``

    Raises:
        ConfigError: an unknown split or a number outside its range.
        DataError: the folder does not exist, or no structure is left.
        MissingExtraError: biotite is not installed.
    """

    noun = "structure"
    suffixes = SUFFIXES

    def __init__(
        self,
        root: str | Path,
        residues: int | None = 64,
        train: bool = False,
        split: Literal["all", "train", "val"] = "all",
        least: int = 20,
        only: Sequence[str] = (),
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if (residues is not None and residues < 1) or least < 1:
            raise ConfigError(
                "ProteinFolder: expected residues and least of 1 or more; got "
                f"residues={residues}, least={least}."
            )
        self.residues, self.least = residues, least
        self._chains: dict[str, Tensor] = {}
        super().__init__(root, SIGNAL, train, seed, split, only, exclude)

    def why_not(self, name: str) -> str | None:
        """Return why a file cannot be used, or None; its chain is kept."""
        chain = read_chain(self.root / name, self.least)
        if isinstance(chain, str):
            return chain
        self._chains[name] = chain
        return None

    def read(self, name: str, generator: np.random.Generator | None) -> Tensor:
        """Return a crop ``(9, residues)`` float32 of a chain."""
        atoms = self._chains[name]
        length, start = self.residues or len(atoms), 0
        if generator is not None and len(atoms) > length:
            start = int(generator.integers(len(atoms) - length + 1))
        return crop_of(atoms, start, length)


def crop_of(atoms: Tensor, start: int, length: int) -> Tensor:
    """Return residues from ``start`` on as a signal ``(9, length)`` float32, centred.

    Args:
        atoms: ``(T, 3, 3)``, NaN where residues are missing.
        start: the first residue.
        length: behind the end of the chain all are missing.
    """
    part = atoms[start : start + length]
    center = part[:, 1].nanmean(0)
    whole = torch.full((length, 3, 3), torch.nan, dtype=part.dtype)
    whole[: len(part)] = part - center
    return signal_of(whole.nan_to_num(0)).float().contiguous()


def read_chain(path: Path, least: int = 1) -> Tensor | str:
    """Return the backbone ``(T, 3, 3)`` float64 of the first chain of a file, or why there is none.

    Args:
        path: of the file.
        least: residues that have to be there.

    Returns:
        N, CA and C in angstroms, NaN where a residue is missing.

    Raises:
        MissingExtraError: biotite is not installed.
    """
    structure = _biotite()
    try:
        array = _atoms(path)
    except Exception as error:  # readers of foreign files fail in many ways
        words = (str(error).splitlines() or [""])[0]
        return f"not readable ({type(error).__name__} {words:.60})"
    array = array[structure.filter_amino_acids(array)]
    if not array.array_length():
        return "no protein"
    chain = array[array.chain_id == array.chain_id[0]]
    starts = structure.get_residue_starts(chain, add_exclusive_stop=True)
    numbers = chain.res_id[starts[:-1]]
    places, at = [0], 0
    for step in np.diff(numbers):
        at += min(int(step), WIDEST) if step > 0 else 1
        places.append(at)
    atoms = np.full((at + 1, 3, 3), np.nan)
    for place, start, stop in zip(places, starts[:-1], starts[1:], strict=True):
        for slot, name in enumerate(ATOMS):
            found = np.flatnonzero(chain.atom_name[start:stop] == name)
            if len(found):
                atoms[place, slot] = chain.coord[start + found[0]]
    atoms[~np.isfinite(atoms).all((1, 2))] = np.nan
    there = int(np.isfinite(atoms[:, 0, 0]).sum())
    if there < least:
        return f"{there} residues in its first chain, fewer than {least}"
    if np.nanmax(np.abs(atoms - np.nanmean(atoms[:, 1], axis=0))) > SIGNAL.value_range[1]:
        return "atoms further apart than 1000 angstroms"
    return torch.from_numpy(atoms)


def _atoms(path: Path) -> Any:
    """Return the atoms of the first model of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of optional fields that a file does not have
        return _structure(path)


def _structure(path: Path) -> Any:
    if path.suffix.lower() in (".pdb", ".ent"):
        from biotite.structure.io import pdb

        return pdb.PDBFile.read(str(path)).get_structure(model=1)
    from biotite.structure.io import pdbx

    reader = pdbx.BinaryCIFFile if path.suffix.lower() == ".bcif" else pdbx.CIFFile
    return pdbx.get_structure(reader.read(str(path)), model=1)


def _biotite() -> Any:
    try:
        from biotite import structure
    except ImportError as error:
        raise MissingExtraError(
            "ProteinFolder: expected the package biotite; got none. "
            'Run pip install "tokenizers_vq[protein]".'
        ) from error
    return structure
