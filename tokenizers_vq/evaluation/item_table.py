"""What the commands of ``eval/`` share that measure item after item: arguments, means, files."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.entry import dataset_from
from tokenizers_vq.evaluation.run import DataLike
from tokenizers_vq.files import write_atomically

Rows = Sequence[Mapping[str, Mapping[str, float | None]]]
Columns = Mapping[str, tuple[str, int]]


def options(about: str, data: str) -> argparse.ArgumentParser:
    """Return the parser of a command: tokenizer, data, names, folder of the results, sentence.

    Args:
        about: of the command.
        data: what is measured where nothing is asked for.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer", help="name or folder")
    parser.add_argument("--data", default=data, help="folder, or a name in conf/data")
    parser.add_argument("--only", nargs="*", default=[], help="patterns of names in the folder")
    parser.add_argument("-o", type=Path, default=None, help="folder for the results")
    parser.add_argument("--about", default="", help="a sentence printed with the table")
    return parser


def data_of(
    given: argparse.Namespace, folder: Callable[[str, Sequence[str]], DataLike]
) -> tuple[DataLike, str]:
    """Return the data that were asked for, and their name.

    Args:
        given: the arguments.
        folder: makes a data set of a folder and patterns of names.

    Raises:
        ConfigError: there is neither such a folder nor such a data set.
        DataError: nothing in the folder can be used.
    """
    if Path(given.data).is_dir():
        return folder(given.data, given.only), "folder"
    return dataset_from(given.data)


def table(rows: Rows, columns: Columns) -> str:
    """Return the means over items as Markdown, one line per name.

    Args:
        rows: of each item, the numbers by name and column; None where there is none.
        columns: title and digits behind the point of each.
    """
    titles = " | ".join(title for title, _ in columns.values())
    lines = [f"| | {titles} |", "|---|" + "---:|" * len(columns)]
    for name in rows[0]:
        cells = []
        for key, (_, digits) in columns.items():
            values = [v for v in (one[name][key] for one in rows) if v is not None]
            cells.append(f"{statistics.fmean(values):.{digits}f}" if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def note_of(tokenizer: Any, dataset: DataLike, name: str) -> dict[str, Any]:
    """Return what the numbers are of: tokenizer, data and environment."""
    return {
        "tokenizer": tokenizer.model_id, "data": name, "ids": list(dataset.ids),
        "sha256": dataset.sha256(), "n": len(dataset.ids),
        "environment": results.environment("cpu"),
    }  # fmt: skip


def finish(
    given: argparse.Namespace, kind: str, note: dict[str, Any], rows: Rows, columns: Columns,
    amount: str, more: str = "",
) -> None:  # fmt: skip
    """Print the table with what it is of; write it, and every row, where a folder was named.

    Args:
        given: the arguments.
        kind: of the items; also the name of the JSON file.
        note: what ``note_of`` returned, and more.
        rows: see ``table``.
        columns: see ``table``.
        amount: how many there are, in words.
        more: said after the commit.
    """
    about = (
        f"{note['tokenizer']}, {note['data']}, {amount}, data {note['sha256'][:12]}, commit "
        f"{str(note['environment'].get('commit'))[:10]}{more}. {given.about}"
    )
    page = f"{table(rows, columns)}\n\n{about.strip()}\n"
    sys.stdout.write(page + "\n")
    if given.o is not None:
        whole = {**note, "about": given.about, "rows": rows}
        results.write_json(given.o / f"{kind}.json", whole)
        write_atomically(given.o / "table.md", page)
