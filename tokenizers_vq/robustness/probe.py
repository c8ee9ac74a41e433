"""``tvq probe``: every robustness curve and codebook number of an image tokenizer, one page."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.doctor.diagnosis import twins
from tokenizers_vq.doctor.survey import codes_of, has_table, parts
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.protocol import Protocol
from tokenizers_vq.files import write_atomically
from tokenizers_vq.metrics.codebook import Codebook, entropy_bits
from tokenizers_vq.robustness.curves import Judge, levels, perturbation, prefixes, token_drop
from tokenizers_vq.robustness.field import receptive_fields
from tokenizers_vq.robustness.stability import index_stability
from tokenizers_vq.tokenizer import Tokenizer

SCHEMA = 1


@torch.no_grad()
def probe(
    tokenizer: Tokenizer,
    dataset: Any,
    out: str | Path | None = None,
    *,
    data_name: str = "",
    size: int = 256,
    limit: int | None = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Examine an image tokenizer on pictures.

    Args:
        tokenizer: in evaluation.
        dataset: items ``(3, H, W)`` in [-1, 1] with ``ids`` and ``sha256()``.
        out: folder for ``probe.json`` and ``probe.md``; nothing is written without it.
        data_name: printed with the numbers.
        size: the pictures are the centre squares of that side.
        limit: how many pictures, drawn by the seed; None for all.
        seed: of the choice, of damage and of intervals.

    Raises:
        ConfigError: it is no tokenizer of pictures with codes.
    """
    if tokenizer.signal.kind != "image" or not tokenizer.quantizer.codebook_sizes:
        raise ConfigError(
            f"probe: expected a tokenizer of pictures with codes; got {tokenizer.name} of kind "
            f"{tokenizer.signal.kind}. Use tvq doctor for others."
        )
    start = time.perf_counter()
    view = Protocol("probe", size=size, limit=limit, seed=seed)
    chosen = _chosen(len(dataset.ids), limit, seed)
    pixels = torch.stack([view.prepare(dataset[k]) for k in chosen])
    judge = Judge.of(tokenizer, pixels)
    option, prefix = prefixes(judge)
    report = {
        "schema": SCHEMA,
        "kind": "probe",
        "name": tokenizer.name,
        "sha256": tokenizer.sha256,
        "data": {
            "name": data_name or type(dataset).__name__,
            "sha256": dataset.sha256(),
            "n": len(chosen),
            "ids_sha256": hashlib.sha256(
                "\n".join(dataset.ids[k] for k in chosen).encode()
            ).hexdigest(),
        },
        "size": size,
        "seed": seed,
        "feature_space": judge.space,
        "environment": results.environment("cpu"),
        "token_drop": token_drop(judge, seed),
        "prefix": {"option": option, "points": prefix},
        "perturbation": _or_reason(perturbation, judge, seed),
        "levels": levels(judge, seed),
        "stability": index_stability(tokenizer, pixels, seed=seed),
        "receptive_field": receptive_fields(tokenizer, pixels[0]),
        "entropy": entropies([codes.indices for codes in judge.codes], judge),
        "twins": _twins(tokenizer, judge),
    }
    report["seconds"] = round(time.perf_counter() - start, 2)
    if out is not None:
        results.write_json(Path(out) / "probe.json", report)
        write_atomically(Path(out) / "probe.md", page(report))
    return report


def entropies(batches: Sequence[Tensor], judge: Judge) -> dict[str, Any]:
    """Return entropy per position and per level, and the bits that are really there.

    The entropy of a position over n pictures cannot exceed log2 n bits per codebook; that bound is
    given beside it.
    """
    indices = torch.cat([batch.cpu() for batch in batches])
    n, count = len(indices), indices.shape[-1]
    metric = Codebook()
    metric.add(indices, judge.codes[0].codebook_sizes)
    scores = metric.compute()
    flat = indices.reshape(n, -1, count)
    each = [
        sum(entropy_bits(torch.unique(c, return_counts=True)[1]) for c in place.unbind(1))
        for place in flat.unbind(1)
    ]
    column = torch.tensor(each, dtype=torch.float64)
    nominal = sum(codes.bits * len(codes.indices) for codes in judge.codes) / n
    return {
        "tokens": scores["usage"].n,
        "per_level": scores["entropy_bits"].detail["per_codebook"],
        "usage_per_level": scores["usage"].detail["per_codebook"],
        "joint_bits": scores["joint_bits"].value,
        "per_position": {
            "mean": float(column.mean()),
            "lowest": float(column.min()),
            "highest": float(column.max()),
            "bound": count * float(torch.tensor(float(n)).log2()),
            "grid": list(indices.shape[1:-1]),
            "bits": [round(value, 3) for value in each],
        },
        "nominal_bits": nominal,
        "marginal_bits": sum(scores["entropy_bits"].detail["per_codebook"]) * flat.shape[1],
        "file_bits": _file_bits(judge),
    }


def page(report: Mapping[str, Any]) -> str:
    """Return a report as a Markdown page."""
    data = report["data"]
    space = f"FD-{report['feature_space']}" if report["feature_space"] else ""
    names = ["psnr", *([space] if space else [])]
    entropy, places = report["entropy"], report["entropy"]["per_position"]
    lines = [f"# Robustness of {report['name']}", ""]
    lines += ["## Missing tokens", "", *_points(report["token_drop"], ["share"], names), ""]
    if report["prefix"]["points"]:
        option = report["prefix"]["option"]
        lines += ["## Prefixes", "", *_points(report["prefix"]["points"], [option], names), ""]
    lines += ["## Tokens drawn anew from their neighbours", ""]
    if isinstance(report["perturbation"], str):
        lines += [report["perturbation"], ""]
    else:
        lines += [*_points(report["perturbation"], ["rate", "count"], names), ""]
    lines += ["## One codebook drawn anew", "", *_points(report["levels"], ["codebook"], names), ""]
    lines += ["## Indices that stay", "", "| change | indices | 95 % interval | whole positions |",
              "|---|---:|---:|---:|"]  # fmt: skip
    for name, one in report["stability"].items():
        low, high = one["interval"] or (one["indices"], one["indices"])
        lines.append(f"| {name} | {one['indices']:.1%} | {low:.1%} .. {high:.1%} | "
                     f"{one['positions']:.1%} |")  # fmt: skip
    lines += ["", "## The middle token's field", "", "| side | extent px | effective px | share |",
              "|---|---:|---:|---:|"]  # fmt: skip
    for side, one in report["receptive_field"].items():
        extent = " x ".join(map(str, one["extent"]))
        lines.append(f"| {side} | {extent} | {one['effective']} | {one['share']:.1%} |")
    lines += [
        "", "## Bits", "", "| | bits per picture |", "|---|---:|",
        f"| nominal | {entropy['nominal_bits']:,.0f} |",
        f"| entropy of each codebook | {entropy['marginal_bits']:,.0f} |",
        f"| real file | {entropy['file_bits']:,.0f} |", "",
        f"Per position {places['mean']:.2f} bits ({places['lowest']:.2f} to "
        f"{places['highest']:.2f}; {data['n']} pictures bound it at {places['bound']:.2f}). "
        f"Per codebook {min(entropy['per_level']):.2f} to {max(entropy['per_level']):.2f} bits of "
        f"{entropy['tokens']:,} tokens. Twin codes: {report['twins']['pairs']}.", "",
        f"{data['name']} ({data['sha256'][:12]}), n = {data['n']}, {report['size']} px, seed "
        f"{report['seed']}; commit {(report['environment']['commit'] or 'unknown')[:10]}; "
        f"{report['seconds']} s.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``tvq probe``."""
    parser.add_argument("tokenizer", help="name, folder or hf:org/repo")
    parser.add_argument("--data", default="wheels", help="folder of pictures, or name in conf/data")
    parser.add_argument("--size", type=int, default=256, help="side of the squares")
    parser.add_argument("--limit", type=int, default=16, help="how many pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=None, help="folder of the report")


def main_from_args(arguments: argparse.Namespace) -> int:
    """Examine as the command line says; print the page.

    Raises:
        ConfigError, CheckpointError, DataError: no such tokenizer or data, or of another kind.
    """
    from tokenizers_vq.evaluation.entry import dataset_from
    from tokenizers_vq.hub import load

    tokenizer = load(arguments.tokenizer)
    dataset, name = dataset_from(arguments.data)
    out = arguments.out or Path("outputs/probe") / tokenizer.name
    report = probe(
        tokenizer, dataset, out, data_name=name, size=arguments.size, limit=arguments.limit,
        seed=arguments.seed,
    )  # fmt: skip
    sys.stdout.write(page(report) + f"\n{out / 'probe.md'}\n")
    return 0


def _points(
    points: Sequence[Mapping[str, float]], keys: Sequence[str], names: Sequence[str]
) -> list[str]:
    head = [*keys, *(results.label(name) for name in names)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---:|" * len(head)]
    for point in points:
        cells = [f"{point[key]:g}" for key in keys] + [results.number(point[n]) for n in names]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _chosen(total: int, limit: int | None, seed: int) -> list[int]:
    if limit is None or limit >= total:
        return list(range(total))
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(total, generator=generator)[:limit].tolist())


def _or_reason(curve: Any, judge: Judge, seed: int) -> list[dict[str, float]] | str:
    try:
        points: list[dict[str, float]] = curve(judge, seed)
    except ConfigError as error:
        return str(error)
    return points


def _file_bits(judge: Judge) -> float:
    from tokenizers_vq.bitstream import to_bytes

    total = 0
    for codes in judge.codes:
        for k in range(len(codes.indices)):
            one = replace(codes, indices=codes.indices[k : k + 1])
            total += len(to_bytes(one, judge.tokenizer.prior))
    return 8 * total / len(judge.pixels)


def _twins(tokenizer: Tokenizer, judge: Judge) -> dict[str, Any]:
    """Return the pairs of codes of learned tables that are nearly one, over all tables."""
    indices = torch.cat([codes.indices.cpu() for codes in judge.codes])
    tables, pairs = 0, 0
    for part in parts(tokenizer.quantizer):
        if not has_table(part.head):
            continue
        tables += 1
        codes = codes_of(part.head).cpu()
        seen = indices[..., part.start].flatten()
        counts = torch.bincount(seen[seen >= 0], minlength=len(codes))
        pairs += len(twins(codes, counts > 0)[0])
    return {"tables": tables, "pairs": pairs if tables else "no learned table"}
