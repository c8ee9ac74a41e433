"""The report of the doctor as text for a terminal, and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from tokenizers_vq.errors import MissingExtraError
from tokenizers_vq.files import write_atomically

SHOWN = 12  # codebooks in the table; doctor.json has all
HEADER = ("codebook", "head", "codes", "used", "dead", "perplexity", "bits of", "top code", "twins",
          "error left")  # fmt: skip

Row = Mapping[str, Any]


def page(report: Row) -> str:
    """Return a report of ``diagnose`` with its findings as text, about 90 columns wide."""
    name, data = report["tokenizer"]["name"], report["data"]
    rows: Sequence[Row] = report["codebooks"]
    lines = [
        f"{name} on {data['name']}: {data['items']:,} items, {report['tokens']:,} positions",
        "",
        *_table([HEADER, *map(_cells, rows[:SHOWN])]),
    ]
    if len(rows) > SHOWN:
        lines.append(f"... and {len(rows) - SHOWN} more")
    lines += ["", _bits(report), *_stack_lines(report), *_drift_lines(report)]
    if "note" in report["positions"]:
        lines.append(f"{_capital(report['positions']['note'])}.")
    lines += ["", *_finding_lines(report["findings"])]
    return "\n".join(lines) + "\n"


def draw(report: Row, path: Path) -> None:
    """Write a PNG: how often the codes of each codebook occur, sorted, and the drift if there is.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "doctor: package matplotlib, which draws the picture, not found; "
            "pip install 'tokenizers-vq[demo]'"
        ) from error
    drifts: Sequence[Row] = report.get("drift", [])
    figure = Figure(figsize=(12 if drifts else 7, 4.2), layout="constrained")
    axes = figure.subplots(1, 2 if drifts else 1, squeeze=False)[0]
    _draw_use(axes[0], report["codebooks"])
    if drifts:
        _draw_drift(axes[1], drifts)
    name, data = report["tokenizer"]["name"], report["data"]["name"]
    figure.suptitle(f"{name} on {data}, {report['tokens']:,} positions")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())


def _draw_use(axes: Any, rows: Sequence[Row]) -> None:
    """Draw the share of each code times the number of codes: even use is a line at 1."""
    for row in rows:
        bars = row["frequencies"]
        even = row["tokens"] / row["size"]
        places = [(k + 0.5) / len(bars) for k in range(len(bars))]
        label = f"#{row['codebook']}" if len(rows) <= 10 else None
        axes.plot(places, [bar / even for bar in bars], label=label, linewidth=1.2)
    axes.axhline(1, color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xlabel="codes, most used first (share of the codebook)",
        ylabel="use / even use",
        yscale="symlog",
        ylim=(0, None),
    )
    if len(rows) <= 10:
        axes.legend(title="codebook")


def _draw_drift(axes: Any, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    axes.bar(places, [row["divergence"] for row in rows], label="drift")
    if all(row["noise"] is not None for row in rows):
        noise = [row["noise"] for row in rows]
        axes.plot(places, noise, "_", color="black", markersize=14, label="explained by chance")
    axes.set(xlabel="codebook", ylabel="Jensen-Shannon divergence, bits")
    axes.legend()


def _cells(row: Row) -> tuple[str, ...]:
    known = row["enough_tokens"] or not row["dead"]
    return (
        f"#{row['codebook']}" + (f" {row['path']}" if row["path"] else ""),
        row["head"],
        f"{row['size']:,}",
        f"{row['used']:,}",
        f"{row['dead']:,}" if known else f"({row['dead']:,})",
        f"{row['perplexity']:,.1f}",
        f"{row['bits']:.2f} of {row['nominal_bits']:.2f}",
        f"{row['top_share']:.1%}",
        "-" if row["twins"] is None else f"{len(row['twins']):,}",
        "-" if row["error"] is None else f"{row['error']:.3f}",
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of aligned cells: the first two columns to the left, numbers to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _bits(report: Row) -> str:
    coder = (
        "its entropy coder saves the difference, or more"
        if report["entropy_coded"]
        else "it has no entropy coder to save the difference"
    )
    return fill(
        f"Bits per position: {report['nominal_bits']:.2f} at fixed length, {report['bits']:.2f} as "
        f"the codes are used; {coder}. Dead codes in brackets: too few tokens to tell.",
        90,
    )


def _stack_lines(report: Row) -> list[str]:
    return [
        f"Variance left after each stage of {path or 'the stack'}: "
        + ", ".join(f"{error:.3g}" for error in errors)
        for path, errors in report["stacks"].items()
    ]


def _drift_lines(report: Row) -> list[str]:
    """Return a table of the drift, the most moved codebooks first."""
    rows: Sequence[Row] = report.get("drift", [])
    if not rows:
        return []
    order = sorted(range(len(rows)), key=lambda k: -float(rows[k]["divergence"]))[:8]
    cells = [("codebook", "", "drift, bits", "by chance", "most changed code")]
    for k in order:
        noise = rows[k]["noise"]
        code, before, after = rows[k]["changed"][0]
        cells.append(
            (
                f"#{k}",
                "",
                f"{rows[k]['divergence']:.4f}",
                "too few items" if noise is None else f"{noise:.4f}",
                f"{code}: {before:.1%} -> {after:.1%}",
            )
        )
    other = report["against"]
    return ["", f"Drift to {other['name']}, {other['items']:,} items:", *_table(cells)]


def _finding_lines(findings: Sequence[Row]) -> list[str]:
    if not findings:
        return ["Nothing to repair."]
    lines = []
    for finding in findings:
        where = f"{finding['where']}: " if finding["where"] else ""
        text = f"{_capital(finding['kind'].replace('_', ' '))}. {where}{finding['found']}."
        lines.append(fill(text, 90, initial_indent="* ", subsequent_indent="  "))
        lines.append(fill(f"-> {finding['advice']}", 90, initial_indent="  ",
                          subsequent_indent="     "))  # fmt: skip
    return lines


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
