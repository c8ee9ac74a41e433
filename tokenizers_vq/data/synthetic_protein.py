"""Generated proteins of helices, strands, hairpins and loops, for tests and first runs."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.protein import SIGNAL, crop_of
from tokenizers_vq.data.transforms import draw_generator
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.torsions import HELIX, STRAND, backbone_from_torsions

TURN = ((60.0, 30.0), (90.0, 0.0))  # type I', which strands of a hairpin turn by
LOOPS = (HELIX, STRAND, (-75.0, 145.0), (60.0, 45.0))
SHARES = (0.35, 0.3, 0.3, 0.05)  # of loops' residues in each


class SyntheticProtein(SignalDataset):
    """Chains in ideal geometry whose torsions are those of secondary structure, with some scatter.

    Chains may run through themselves: no energy is asked. Protein ``i`` is a function of ``seed``,
    ``i`` and ``residues`` alone and is the same in each epoch.

    Args:
        n: number of proteins.
        residues: of each.
        missing: share of proteins in which a run of 1 to 4 residues is missing.
        seed: another seed gives other proteins.

    Shapes:
        item ``(9, residues)`` float32 in angstroms, see ``functional.frames``

    Raises:
        ConfigError: a number is outside its range.
    """

    def __init__(
        self, n: int = 256, residues: int = 64, missing: float = 0.2, seed: int = 0
    ) -> None:
        if min(n, residues) < 1 or not 0 <= missing <= 1:
            raise ConfigError(
                "SyntheticProtein: expected n and residues of 1 or more and missing of 0 to 1; got "
                f"n={n}, residues={residues}, missing={missing}."
            )
        super().__init__([f"{index:08d}" for index in range(n)], SIGNAL)
        self.residues, self.missing, self.seed = residues, missing, seed
        self._made: dict[int, Tensor] = {}

    def item(self, index: int, epoch: int) -> Tensor:
        """Return protein ``index``; ``epoch`` changes nothing."""
        if index not in self._made:
            generator = draw_generator(self.seed, 0, index)
            degrees = torch.from_numpy(_torsions(generator, self.residues))
            atoms = backbone_from_torsions(*torch.deg2rad(degrees).T)
            if generator.random() < self.missing:
                first = int(generator.integers(self.residues))
                atoms[max(first, 1) : first + int(generator.integers(1, 5))] = torch.nan
            self._made[index] = crop_of(atoms, 0, self.residues)
        return self._made[index]

    def sha256(self) -> str:
        """Return the hex digest over the ids and atoms of all proteins; makes each of them."""
        digest = hashlib.sha256()
        for index, id_ in enumerate(self.ids):
            digest.update(id_.encode() + self.item(index, 0).numpy().tobytes())
        return digest.hexdigest()


def _torsions(generator: np.random.Generator, residues: int) -> np.ndarray:
    """Return phi, psi and omega ``(residues, 3)`` in degrees."""
    rows: list[tuple[float, float]] = []
    while len(rows) < residues:
        kind = generator.choice(["helix", "strand", "hairpin", "loop"], p=[0.4, 0.15, 0.2, 0.25])
        if kind == "loop":
            picked = generator.choice(len(LOOPS), int(generator.integers(2, 7)), p=SHARES)
            rows += [LOOPS[which] for which in picked]
            continue
        length = int(generator.integers(4, 18 if kind == "helix" else 9))
        part = [HELIX if kind == "helix" else STRAND] * length
        rows += [*part, *TURN, *part] if kind == "hairpin" else part
    scatter = generator.normal(0, generator.uniform(2, 10), (residues, 2))
    angles = np.array(rows[:residues]) + scatter
    omega = 180 + generator.normal(0, 3, (residues, 1))
    return np.concatenate([angles, omega], axis=1)
