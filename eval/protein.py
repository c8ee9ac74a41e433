r"""A protein tokenizer beside one helix for everything, on chains it was not trained on.

python eval/protein.py outputs/<run>/tokenizer --data <folder> --only "foldseek_*" \
    -o eval/results/<name>/protein

Per chain and the mean over chains: RMSD of CA after superposition, TM-score, lDDT of CA, FAPE (cut
at 10 angstroms) and bits per residue, over residues that are there; beside it a straight helix of
as many residues, and the chain rebuilt in ideal geometry from its own torsions, which is what a
lossless code of torsions alone would give. Also how many tokens change when a chain is turned and
moved, and how many residues are wrongly called missing or there.
"""

import argparse
import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor

import tokenizers_vq
from tokenizers_vq.data.protein import ProteinFolder
from tokenizers_vq.errors import ConfigError, DataError, MissingExtraError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.entry import dataset_from
from tokenizers_vq.files import write_atomically
from tokenizers_vq.functional.frames import atoms_of, frame_error, is_present
from tokenizers_vq.functional.rotations import from_six
from tokenizers_vq.functional.superposition import superposed
from tokenizers_vq.functional.torsions import HELIX, backbone_from_torsions, torsions_of
from tokenizers_vq.metrics.structure import lddt, rmsd, tm_score

COLUMNS = {
    "bits": "bits / residue", "rmsd": "RMSD Å", "tm": "TM-score", "lddt": "lDDT-CA",
    "fape": "FAPE", "presence_errors": "presence errors",
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


def table(rows: list[dict[str, dict]]) -> str:
    """Return the means over chains as Markdown."""
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name in rows[0]:
        cells = []
        for key in COLUMNS:
            values = [one[name][key] for one in rows if one[name][key] is not None]
            digits = 3 if key in ("tm", "lddt", "fape") else 2
            cells.append(f"{statistics.fmean(values):.{digits}f}" if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", help="name or folder")
    parser.add_argument("--data", default="synthetic_protein", help="folder, or a conf/data name")
    parser.add_argument("--only", nargs="*", default=[], help="patterns of names in the folder")
    parser.add_argument("-o", type=Path, default=None, help="folder for the results")
    parser.add_argument("--about", default="", help="a sentence printed with the table")
    given = parser.parse_args(argv)
    try:
        tok = tokenizers_vq.load(given.tokenizer)
        if Path(given.data).is_dir():
            dataset, name = ProteinFolder(given.data, None, only=given.only), "folder"
        else:
            dataset, name = dataset_from(given.data)
    except (ConfigError, DataError, MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    found = [measure(tok, x) for x in dataset]
    rows, moved = [one for one, _, _ in found], statistics.fmean(share for *_, share in found)
    note = {"tokenizer": tok.model_id, "data": name, "ids": dataset.ids}
    note |= {"sha256": dataset.sha256(), "n": len(dataset), "moved_tokens": moved}
    note |= {"residues": [x.shape[1] for x in dataset], "environment": results.environment("cpu")}
    about = (
        f"{tok.model_id}, {name}, {len(dataset)} chains of {sum(note['residues'])} residues, data "
        f"{note['sha256'][:12]}, commit {str(note['environment']['commit'])[:10]}; "
        f"{100 * moved:.2f} % of the tokens change when a chain is turned. {given.about}"
    )
    page = f"{table(rows)}\n\n{about.strip()}\n"
    print(page)
    if given.o is not None:
        results.write_json(given.o / "chains.json", {**note, "about": given.about, "rows": rows})
        write_atomically(given.o / "table.md", page)
        order = sorted(range(len(rows)), key=lambda i: rows[i][TOKENS]["rmsd"])
        chosen = [order[0], order[len(order) // 2], order[-1]]
        pairs = [(dataset.ids[i], atoms_of(dataset[i]), found[i][1]) for i in chosen]
        picture(given.o / "chains.png", pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
