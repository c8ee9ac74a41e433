"""The health of a tokenizer's codebooks on a data set: use, dead codes, twins, errors, places."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.doctor.advice import findings
from tokenizers_vq.doctor.drift import drift
from tokenizers_vq.doctor.survey import Part, Survey, codes_of, has_table, parts, survey
from tokenizers_vq.evaluation.results import environment, write_json
from tokenizers_vq.functional.nearest import nearest_codes
from tokenizers_vq.metrics.codebook import Codebook, entropy_bits, pooled_frequencies
from tokenizers_vq.registry import QUANTIZERS

SCHEMA = "tokenizers_vq.doctor.1"
TOKENS_PER_CODE = 10  # below, an unused code proves nothing: by chance alone e^-10 of them are
TWIN = 0.1  # of the median distance from a code to its nearest neighbour
TWIN_SEARCH = 2**14  # larger codebooks are sampled
TWIN_SAMPLE = 2**11
MIN_ITEMS = 16  # of one size, before the entropy of a position says something
LOW = 0.5  # of the median entropy of the positions
OPTIONS = (
    "codebook_update", "code_dim", "entropy_weight", "kmeans_init", "max_level", "metric",
    "restart", "restart_threshold",
)  # fmt: skip


def diagnose(seen: Survey, data_name: str = "") -> dict[str, Any]:
    """Return the health of every codebook as plain data, without the findings.

    Args:
        seen: what the tokenizer made of the data.
        data_name: of the data.

    Returns:
        ``tokenizer``, ``data``, ``tokens`` (positions), ``codebooks`` (one mapping each),
        ``stacks`` (error after each stage over the variance of the latents), ``positions``, and
        bits per position: ``bits`` (sum of the codebooks' entropies), ``nominal_bits``,
        ``joint_bits``.
    """
    tokenizer = seen.tokenizer
    metric = _counted(seen)
    scores = metric.compute()
    heads = parts(tokenizer.quantizer)
    tables = {path: _table_numbers(seen, part) for path, part in {p.path: p for p in heads}.items()}
    codebooks = [row | tables[part.path] for part in heads for row in _part_rows(part, metric)]
    return {
        "schema": SCHEMA,
        "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.sha256},
        "data": {"name": data_name, "items": len(seen.items)},
        "tokens": len(seen.rows),
        "bits": scores["entropy_bits"].value,
        "nominal_bits": tokenizer.quantizer.bits_per_position,
        "joint_bits": scores["joint_bits"].value,
        "entropy_coded": tokenizer.prior is not None,
        "codebooks": codebooks,
        "stacks": {
            path: _rounded(error.shares)
            for path, error in seen.errors.items()
            if path not in tables and error.rows
        },
        "positions": _positions(seen.items),
        "environment": environment(str(next(tokenizer.parameters()).device)),
    }


def twins(codes: Tensor, live: Tensor) -> tuple[list[tuple[int, int]], str]:
    """Return pairs of codes in use that are nearer than ``TWIN`` of the usual distance.

    Usual is the median distance from a code in use to its nearest neighbour.

    Args:
        codes: ``(K, d)``.
        live: ``(K,)`` bool.

    Returns:
        The pairs, lowest index first, and a note when only a sample of the codes was looked at.
    """
    place = live.nonzero()[:, 0]
    table = codes[place]
    if len(place) < 3:
        return [], ""
    asked, note = torch.arange(len(place), device=table.device), ""
    if len(place) > TWIN_SEARCH:
        generator = torch.Generator().manual_seed(0)
        asked = torch.randperm(len(place), generator=generator)[:TWIN_SAMPLE].to(table.device)
        note = f"neighbours of {TWIN_SAMPLE:,} of {len(place):,} codes in use"
    near = nearest_codes(table[asked], table, 2)
    other = torch.where(near[:, 0] == asked, near[:, 1], near[:, 0])
    distance = (table[asked] - table[other]).norm(dim=-1)
    close = distance < TWIN * distance.median()
    if not bool(distance.median() > 0):
        close = distance == 0
    pairs = torch.stack([place[asked[close]], place[other[close]]], dim=1).sort(dim=1).values
    return sorted({(int(a), int(b)) for a, b in pairs.tolist()}), note


def main_from_args(arguments: argparse.Namespace) -> None:
    """Diagnose as the command line says, print it, write it or the repaired tokenizer.

    Raises:
        ConfigError: an unknown data set, an option without the one it needs, or a repair that the
            head or the number of tokens does not allow.
        CheckpointError: the tokenizer is missing or not what it says.
        DataError: the data set is empty.
    """
    from tokenizers_vq.doctor.surgery import check_request, repair_and_save, repairable
    from tokenizers_vq.doctor.view import draw, page
    from tokenizers_vq.evaluation.entry import dataset_from
    from tokenizers_vq.hub import load

    check_request(arguments.fix, arguments.codes, arguments.out)
    tokenizer = load(arguments.tokenizer).to(arguments.device)
    if arguments.fix is not None:  # before any work is done
        repairable(tokenizer, arguments.fix)
    options = {"limit": arguments.limit, "progress": True}
    dataset, name = dataset_from(arguments.data)
    seen = survey(tokenizer, dataset, **options)
    report = diagnose(seen, name)
    if arguments.against is not None:
        other, other_name = dataset_from(arguments.against)
        after = survey(tokenizer, other, **options)
        report["against"] = {"name": other_name, "items": len(after.items)}
        report["drift"] = drift(seen, after)
    report["findings"] = findings(report)
    sys.stdout.write(page(report))
    if arguments.fix is not None:
        for line in repair_and_save(
            seen, arguments.fix, arguments.out, arguments.codes, arguments.force
        ):
            sys.stdout.write(f"{line}\n")
    elif arguments.out is not None:
        write_json(arguments.out / "doctor.json", report)
        draw(report, arguments.out / "doctor.png")
        sys.stdout.write(f"{arguments.out / 'doctor.json'}\n{arguments.out / 'doctor.png'}\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``tvq doctor``."""
    parser.add_argument("tokenizer", help="name, folder or hf:org/repo")
    parser.add_argument("data", help="folder of pictures, or a name in conf/data")
    parser.add_argument("--against", metavar="DATA", help="show the drift to another data set")
    parser.add_argument("--limit", type=int, default=None, help="look at that many items")
    parser.add_argument(
        "--fix",
        choices=("prune", "revive", "shrink"),
        help="write a tokenizer without dead codes, with dead codes started anew at latents of "
        "the data, or with codes clustered to --codes; old tokens stay valid",
    )
    parser.add_argument(
        "--codes", type=int, nargs="+", default=(), help="for --fix shrink: smaller sizes"
    )
    parser.add_argument("--force", action="store_true", help="repair after too few tokens")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--out", type=Path, default=None, help="folder of what is written")


def _counted(seen: Survey) -> Codebook:
    metric = Codebook()
    for item in seen.items:
        metric.add(item[None], seen.tokenizer.quantizer.codebook_sizes)
    return metric


def _part_rows(part: Part, metric: Codebook) -> list[dict[str, Any]]:
    """Return the numbers of each codebook of a head."""
    rows = []
    for k in part.columns:
        size = metric.sizes[k]
        codes, counts = metric.counted(k)
        bits, tokens = entropy_bits(counts), int(counts.sum())
        row: dict[str, Any] = {
            "codebook": k,
            "path": part.path,
            "head": _head_name(part),
            "size": size,
            "tokens": tokens,
            "used": len(counts),
            "usage": len(counts) / size,
            "dead": size - len(counts),
            "enough_tokens": tokens >= TOKENS_PER_CODE * size,
            "perplexity": 2.0**bits,
            "bits": bits,
            "nominal_bits": math.log2(size),
            "top_code": int(codes[counts.argmax()]),
            "top_share": float(counts.max()) / tokens,
            "end_share": float(counts[(codes == 0) | (codes == size - 1)].sum()) / tokens,
            "options": {
                name: getattr(part.head, name) for name in OPTIONS if hasattr(part.head, name)
            },
            "frequencies": pooled_frequencies(counts.sort(descending=True).values, size),
        }
        rows.append(row)
    return rows


def _table_numbers(seen: Survey, part: Part) -> dict[str, Any]:
    """Return what can be said of a table of codes: twins, and the error it leaves."""
    if not has_table(part.head):
        return {"twins": None, "twin_note": "", "error": None}
    codes = codes_of(part.head)
    pairs, note = twins(codes, seen.counts(part).to(codes.device) > 0)
    shares = seen.errors[part.path].shares if part.path in seen.errors else []
    error = round(shares[0], 6) if shares else None
    return {"twins": pairs, "twin_note": note, "error": error}


def _head_name(part: Part) -> str:
    where = f"{type(part.head).__module__}:{type(part.head).__qualname__}"
    known = [name for name, target in QUANTIZERS.items() if target == where]
    return known[0] if known else type(part.head).__name__


def _positions(items: Sequence[Tensor]) -> dict[str, Any]:
    """Return which places of the grid vary little from item to item."""
    grids = {tuple(item.shape) for item in items}
    if len(grids) > 1 or len(items) < MIN_ITEMS:
        return {"note": f"positions were not compared: that needs {MIN_ITEMS} items of one size"}
    stacked = torch.stack(list(items)).reshape(len(items), -1, items[0].shape[-1])
    bits = torch.tensor([sum(_column_bits(column)) for column in stacked.unbind(1)])
    median = float(bits.median())
    low = (bits < LOW * median).nonzero()[:, 0]
    grid = tuple(items[0].shape[:-1])
    return {
        "grid": list(grid),
        "median_bits": median,
        "low": [list(_place(int(index), grid)) for index in low],
        "low_bits": float(bits[low].mean()) if len(low) else None,
    }


def _column_bits(rows: Tensor) -> list[float]:
    """Return the entropy of each column of ``rows (n, K)``."""
    return [entropy_bits(torch.unique(c, return_counts=True)[1]) for c in rows.unbind(1)]


def _place(index: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    place: list[int] = []
    for size in reversed(grid):
        index, rest = divmod(index, size)
        place.insert(0, rest)
    return tuple(place)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]
