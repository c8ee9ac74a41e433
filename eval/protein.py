r"""A protein tokenizer beside one helix for everything, on chains it was not trained on.

python eval/protein.py outputs/<run>/tokenizer --data <folder> --only "foldseek_*" \
    -o eval/results/<name>/protein

Per chain and the mean over chains: RMSD of CA after superposition, TM-score, lDDT of CA, FAPE (cut
at 10 angstroms) and bits per residue, over residues that are there; beside it a straight helix of
as many residues, and the chain rebuilt in ideal geometry from its own torsions, which is what a
lossless code of torsions alone would give. Also how many tokens change when a chain is turned and
moved, and how many residues are wrongly called missing or there.
"""

import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor

import tokenizers_vq
from tokenizers_vq.data.protein import ProteinFolder
from tokenizers_vq.errors import ConfigError, DataError, MissingExtraError
from tokenizers_vq.evaluation.item_table import data_of, finish, note_of, options
from tokenizers_vq.functional.frames import atoms_of, frame_error, is_present
from tokenizers_vq.functional.rotations import from_six
from tokenizers_vq.functional.superposition import superposed
from tokenizers_vq.functional.torsions import HELIX, backbone_from_torsions, torsions_of
from tokenizers_vq.metrics.structure import lddt, rmsd, tm_score

COLUMNS = {
    "bits": ("bits / residue", 2), "rmsd": ("RMSD Å", 2), "tm": ("TM-score", 3),
    "lddt": ("lDDT-CA", 3), "fape": ("FAPE", 3), "presence_errors": ("presence errors", 2),
}  # fmt: skip
TOKENS = "tokens"


def row(real: Tensor, fake: Tensor, bits: float | None, there: Tensor) -> dict:
    """Return the numbers of one chain; both are atoms ``(T, 3, 3)``."""
    a, b = real[:, 1], fake[:, 1]
    wrong = int((is_present(fake) != there).sum()) if bits is not None else None
    return {
        "bits": bits,
        "rmsd": rmsd(a, b, there),
        "tm": tm_score(a, b, there),
        "lddt": lddt(a, b, there),
        "fape": float(frame_error(real, fake)),
        "presence_errors": wrong,
    }


def helix(length: int) -> Tensor:
    """Return the atoms ``(length, 3, 3)`` of a straight helix."""
    phi, psi = (torch.full((length,), angle).deg2rad() for angle in HELIX)
    return backbone_from_torsions(phi, psi)


@torch.no_grad()
def measure(tok: tokenizers_vq.Tokenizer, x: Tensor) -> tuple[dict[str, dict], Tensor, float]:
    """Return the rows of one chain ``(9, T)``, its reconstruction, the share of moved tokens."""
    real = atoms_of(x)
    there = is_present(real)
    codes = tok.encode(x[None])
    fake = atoms_of(tok.decode(codes)[0])
    bits = codes.bits / x.shape[1]
    rows = {TOKENS: row(real, fake, bits, there)}
    rows["one helix"] = row(real, helix(len(real)), None, there)
    whole = backbone_from_torsions(*torsions_of(real[there]))
    ideal = torch.zeros_like(real)
    ideal[there] = whole
    rows["ideal geometry, real torsions"] = row(real, ideal, None, there)
    turn = from_six(torch.randn(6, generator=torch.Generator().manual_seed(0)))
    moved = torch.where(there[:, None, None], real @ turn.T + 7, real)
    again = tok.encode(moved.flatten(1).T[None])
    return rows, fake, float((again.indices != codes.indices).float().mean())


def picture(path: Path, pairs: list[tuple[str, Tensor, Tensor]]) -> None:
    """Draw CA traces, the real one grey and the other laid on it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(4 * len(pairs), 4))
    for at, (name, real, fake) in enumerate(pairs):
        there = is_present(real)
        a, b = real[there, 1].double(), fake[there, 1].double()
        axis = figure.add_subplot(1, len(pairs), at + 1, projection="3d")
        for trace, colour, width in ((a, "0.65", 3), (superposed(b, a), "C3", 1.5)):
            axis.plot(*trace.T.numpy(), color=colour, lw=width)
        axis.set_title(f"{name}\nRMSD {rmsd(a, b):.1f} Å, TM {tm_score(a, b):.2f}", fontsize=9)
        axis.set_aspect("equal")
        axis.set_axis_off()
    figure.suptitle("real (grey) and from its tokens (red)", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write it with every row and a picture."""
    given = options(__doc__, "synthetic_protein").parse_args(argv)
    try:
        tok = tokenizers_vq.load(given.tokenizer)
        dataset, name = data_of(given, lambda root, only: ProteinFolder(root, None, only=only))
    except (ConfigError, DataError, MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    found = [measure(tok, x) for x in dataset]
    rows, moved = [one for one, _, _ in found], statistics.fmean(share for *_, share in found)
    note = note_of(tok, dataset, name) | {"moved_tokens": moved}
    note |= {"residues": [x.shape[1] for x in dataset]}
    amount = f"{len(dataset)} chains of {sum(note['residues'])} residues"
    turned = f"; {100 * moved:.2f} % of the tokens change when a chain is turned"
    finish(given, "chains", note, rows, COLUMNS, amount, turned)
    if given.o is not None:
        order = sorted(range(len(rows)), key=lambda i: rows[i][TOKENS]["rmsd"])
        chosen = [order[0], order[len(order) // 2], order[-1]]
        pairs = [(dataset.ids[i], atoms_of(dataset[i]), found[i][1]) for i in chosen]
        picture(given.o / "chains.png", pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
