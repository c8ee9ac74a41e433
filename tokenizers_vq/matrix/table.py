"""The cells of the matrix as JSON, Markdown and a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers_vq import viz
from tokenizers_vq.evaluation import results
from tokenizers_vq.files import write_atomically
from tokenizers_vq.matrix.kinds import KINDS

COLUMNS = {
    "ssim": "SSIM",
    "nominal_bits": "bits / item",
    "n_bytes": "bytes / item",
    "usage": "usage",
    "encode_per_second": "encode / s",
    "decode_per_second": "decode / s",
    "train_seconds": "train s",
}
PICTURE = ("nominal_bits", "usage", "decode_per_second")
WIDE = 2
"""Up to so many backbones, the picture has all numbers of each."""

Rows = Sequence[dict[str, Any]]


def write(folder: Path, rows: Rows) -> None:
    """Write ``matrix.json``, ``.md`` and ``.svg`` of these rows and of others that are there."""
    path = folder / "matrix.json"
    found = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    new = {(row["backbone"], row["quantizer"]): row for row in rows}
    kept = [row for row in found if (row["backbone"], row["quantizer"]) not in new]
    order = list(KINDS)
    together = sorted(
        [*kept, *rows], key=lambda row: (order.index(row["kind"]), row["backbone"])
    )  # heads stay in their order
    results.write_json(path, {"rows": together})
    write_atomically(folder / "matrix.md", matrix_table(together))
    write_atomically(folder / "matrix.svg", matrix_picture(together))


def matrix_table(rows: Rows) -> str:
    """Return the rows as Markdown: a table per kind of signal, a backbone after the other."""
    return "\n".join(line for kind in _kinds(rows) for line in _lines(kind, rows))


def matrix_picture(rows: Rows) -> str:
    """Return an SVG: heads down, backbones across.

    Of one or two backbones with the first number, bits, usage and speed; of more, with the first
    number only. A cell that failed has a dash; the table says why.
    """
    backbones = list(dict.fromkeys(row["backbone"] for row in rows))
    heads = sorted({row["quantizer"] for row in rows})
    values, text, columns = {}, {}, dict[str, None]()
    lower: set[str] = set()
    for row in rows:
        kind = KINDS[row["kind"]]
        for metric in (kind.score, *(PICTURE if len(backbones) <= WIDE else ())):
            name = _name(row, metric, backbones)
            columns[name] = None
            if metric == "nominal_bits" or (metric == kind.score and kind.lower):
                lower.add(name)
            place = (row["quantizer"], name)
            values[place] = row.get(metric)
            text[place] = _text(metric, row.get(metric)) if row["status"] == "ok" else "-"
    steps = " or ".join(f"{n:,}" for n in sorted({row["steps"] for row in rows}))
    title = f"{' and '.join(backbones)}, {steps} steps"
    if len(backbones) > WIDE:
        meaning = ", ".join(f"{kind}: {KINDS[kind].label}" for kind in _kinds(rows))
        title = f"{len(backbones)} backbones, {steps} steps ({meaning})"
    return viz.heat_table(heads, list(columns), values, text, title, lower)


def _lines(kind: str, rows: Rows) -> Iterator[str]:
    of = KINDS[kind]
    mine = [row for row in rows if row["kind"] == kind]
    columns = [c for c in COLUMNS if any(c in row for row in mine)]
    yield (
        "| backbone | quantizer | " + " | ".join([of.label, *(COLUMNS[c] for c in columns)]) + " |"
    )
    yield "|---|---|" + "---:|" * (1 + len(columns))

    def rank(row: dict[str, Any]) -> tuple[str, bool, float]:
        score = row.get(of.score)
        return row["backbone"], score is None, (score or 0) * (1 if of.lower else -1)

    for row in sorted(mine, key=rank):
        if row["status"] != "ok":
            yield f"| {row['backbone']} | {row['quantizer']} | failed: {row['error']} |"
            continue
        cells = " | ".join(_text(name, row.get(name)) for name in (of.score, *columns))
        yield f"| {row['backbone']} | {row['quantizer']} | {cells} |"
    for note in dict.fromkeys(
        f"{kind}: data {row['data']}, {row['steps']:,} optimizer steps per cell"
        + (f", measured by {row['measured']}." if "measured" in row else ".")
        for row in mine
        if row["status"] == "ok"
    ):
        yield f"\n{note}"
    yield ""


def _kinds(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["kind"] for row in rows))


def _name(row: dict[str, Any], metric: str, backbones: Sequence[str]) -> str:
    """Return the head of a column of the picture."""
    label = COLUMNS.get(metric, KINDS[row["kind"]].label)
    if len(backbones) == 1:
        return label
    short = str(row["backbone"]).removeprefix("tiny_")
    return f"{short} {label}" if len(backbones) <= WIDE else short


def _text(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    if metric == "usage":
        return f"{100 * value:.{1 if value >= 0.1 else 3}f} %"
    digits = {"psnr": 2}.get(metric, 0 if metric in COLUMNS and metric != "ssim" else 3)
    return f"{value:,.{digits}f}"
