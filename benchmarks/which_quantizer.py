"""Which quantizer? One backbone, one data set, equal bits per token, several seeds.

    python benchmarks/which_quantizer.py --train PHOTOS --heldout OTHER_PHOTOS

Every head gets the same 12 bits per token, the same backbone, optimizer, number of steps and, per
seed, the same order of pictures; its own options are the defaults of this library. Cells that are
done are not done again, so the bench can be stopped at any time. Writes ``which_quantizer.json``,
``.md`` and ``.png`` to the results folder.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers_vq.data.images import ImageFolder
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.protocol import load_protocol
from tokenizers_vq.files import write_atomically
from tokenizers_vq.matrix import Cell, train_with_hydra

# label -> overrides of train.py
HEADS = {
    "vq": ["quantizer=vq", "quantizer.codebook_size=4096"],
    "vq_ema": ["quantizer=vq_ema", "quantizer.codebook_size=4096"],
    "vq_cosine": ["quantizer=vq_cosine", "quantizer.codebook_size=4096"],
    "vq_rotation": [
        "quantizer=vq", "quantizer.codebook_size=4096", "+quantizer.estimator=rotation",
    ],
    "factorized": ["quantizer=factorized", "quantizer.codebook_size=4096"],
    "simvq": ["quantizer=simvq", "quantizer.codebook_size=4096"],
    "rvq": ["quantizer=rvq", "quantizer.stages.repeat=2", "quantizer.stages.of.codebook_size=64"],
    "vq_diveq": ["quantizer=vq_diveq", "quantizer.codebook_size=4096"],
    "ibq": ["quantizer=ibq", "quantizer.codebook_size=4096"],
    "gumbel": ["quantizer=gumbel", "quantizer.codebook_size=4096"],
    "latent": ["quantizer=latent", "quantizer.levels=[8,8,8,8]"],
    "fsq": ["quantizer=fsq", "quantizer.levels=[8,8,8,8]"],
    "dithered_fsq": ["quantizer=dithered_fsq", "quantizer.levels=[8,8,8,8]"],
    "group_fsq": [
        "quantizer=group_fsq", "quantizer.code_dim=4", "quantizer.groups.repeat=2",
        "quantizer.groups.of.levels=[8,8]",
    ],
    "lfq": ["quantizer=lfq", "quantizer.bits=12"],
    "bsq": ["quantizer=bsq", "quantizer.bits=12"],
    "group_lfq": [
        "quantizer=group_lfq", "quantizer.code_dim=12", "quantizer.groups.repeat=2",
        "quantizer.groups.of.bits=6",
    ],
}  # fmt: skip
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # two-sided 95 % t for that many seeds
BETTER = "Better by more than the 95 % interval of the paired difference, not corrected:\n"
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What is trained on, and how heads are compared: all that photos and speech differ in.

    ``common`` are overrides of ``train.py``; ``scores`` the metrics that are kept, the first sorts
    heads (``up``: larger is better); ``data`` makes the held-out set of its folder; ``columns``
    holds the text of each column; ``note`` is formatted with the sizes of both folders.
    """

    name: str
    common: Sequence[str]
    protocol: dict[str, Any]
    scores: tuple[str, ...]
    up: bool
    label: str
    data: Callable[[Path], Any]
    columns: dict[str, Callable[[Row], str]]
    note: str


PHOTOS = Bench(
    name="which_quantizer",
    common=[
        "backbone=tiny_cnn2d", "objective=image_l1", "data=folder", "data.train.split=all",
        "data.train.size=64", "+data.train.cache=true", "data.batch_size=32", "data.num_workers=0",
        "data.repeat=8", "data.val.split=all", "optim.lr=1e-3", "optim.warmup_steps=50",
        "trainer.val_check_interval=1000000", "~callbacks.recon", "logger=none",
    ],
    protocol={
        "name": "which_quantizer",
        "size": 256,
        "metrics": [{"name": "similarity", "names": ["psnr", "ssim"]}, {"name": "codebook"}],
        "resamples": 200,
        "batch_size": 4,
        "limit": None,
        "seed": 0,
    },
    scores=("psnr", "ssim", "usage", "perplexity", "entropy_bits", "n_bytes", "nominal_bits"),
    up=True,
    label="PSNR on photos never trained on, dB",
    data=ImageFolder,
    columns={
        "PSNR dB": lambda row: f"{row['psnr'][0]:.2f} {width(row['psnr'])}",
        "to the best, dB": lambda row: f"{row['versus'][0]:+.2f} {width(row['versus'])}",
        "bits": lambda row: f"{row['nominal_bits'][0] / 1024:.2f}",
        "entropy bits": lambda row: f"{row['entropy_bits'][0]:.2f}",
        "usage": lambda row: f"{100 * row['usage'][0]:.0f} %",
        "perplexity": lambda row: f"{row['perplexity'][0]:,.0f}",
        "bytes": lambda row: f"{row['n_bytes'][0]:,.0f}",
        "CPU s": lambda row: f"{row['train_cpu_seconds'][0]:,.0f}",
    },
    note="{steps:,} steps of 32 crops of 64 x 64, tiny_cnn2d (f8), trained on {train} photos, "
    "measured on {heldout} others at 256 x 256",
)  # fmt: skip


def main(words: Sequence[str] | None = None, bench: Bench = PHOTOS) -> int:
    """Run the bench from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--train", required=True, type=Path, help="folder to train on")
    parser.add_argument("--heldout", required=True, type=Path, help="folder of other data")
    parser.add_argument("--heads", nargs="*", default=list(HEADS), choices=list(HEADS))
    parser.add_argument(
        "--once",
        nargs="*",
        default=[],
        choices=list(HEADS),
        help="slow heads that are run with the first seed alone",
    )
    parser.add_argument("--seeds", type=int, default=3, choices=sorted(STUDENT))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--work", type=Path, default=Path("outputs") / bench.name)
    options = parser.parse_args(words)
    try:
        write(options, run(options, bench), bench)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace, bench: Bench) -> list[Row]:
    """Train and measure every head with every seed; return one row per cell."""
    protocol = load_protocol(bench.protocol)
    heldout = bench.data(options.heldout)
    cells = [
        (head, seed)
        for seed in range(options.seeds)  # seeds outside: a stopped bench has all heads
        for head in options.heads
        if seed == 0 or head not in options.once
    ]
    rows = []
    for head, seed in cells:
        words = [
                *HEADS[head], *bench.common, f"data.root={options.train}", f"seed={seed}",
                f"data.val.root={options.heldout}", f"trainer.max_steps={options.steps}",
            ]  # fmt: skip
        cell = Cell(options.work / f"{head}_{seed}", words, protocol, bench.scores)
        print(f"[{len(rows) + 1}/{len(cells)}] {head}, seed {seed}", flush=True)
        rows.append({"head": head, "seed": seed, **cell.run(train_with_hydra, heldout)})
    return rows


def summary(rows: Sequence[Row], bench: Bench = PHOTOS) -> list[Row]:
    """Return one row per head: means over seeds, 95 % t intervals, the best head first.

    ``versus`` is the mean difference to the best head in the first score, seed by seed, with its
    interval: what all heads of a seed have in common (order of data, first weights) cancels.
    """
    done = [row for row in rows if row["status"] == "ok"]
    heads = dict.fromkeys(row["head"] for row in done)
    cells = {head: {r["seed"]: r for r in done if r["head"] == head} for head in heads}
    first = bench.scores[0]
    table = []
    for head, seeds in cells.items():
        values = {
            name: interval([cell[name] for cell in seeds.values()])
            for name in (*bench.scores, "train_cpu_seconds")
        }
        table.append({"head": head, "seeds": len(seeds), **values})
    table.sort(key=lambda row: row[first][0], reverse=bench.up)
    best = cells[max(table, key=lambda row: row["seeds"])["head"]]  # of those with all seeds
    for row in table:
        seeds = cells[row["head"]]
        gaps = [seeds[seed][first] - best[seed][first] for seed in seeds if seed in best]
        row["versus"] = interval(gaps)
    return table


def beaten(
    rows: Sequence[Row], table: Sequence[Row], bench: Bench = PHOTOS
) -> dict[str, list[str]]:
    """Return the heads that each head is better than, seed by seed, beyond the 95 % interval."""
    first, sign = bench.scores[0], 1 if bench.up else -1
    values = {(row["head"], row["seed"]): row[first] for row in rows if row["status"] == "ok"}
    seeds = sorted({seed for _, seed in values})
    heads = [row["head"] for row in table]
    found: dict[str, list[str]] = {head: [] for head in heads}
    for head, other in itertools.permutations(heads, 2):
        both = [seed for seed in seeds if (head, seed) in values and (other, seed) in values]
        if both:
            gaps = [sign * (values[head, seed] - values[other, seed]) for seed in both]
            mean, half = interval(gaps)
            found[head] += [other] * (mean > half)
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % t interval (nan for fewer than 2 values)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


def write(options: argparse.Namespace, rows: Sequence[Row], bench: Bench) -> None:
    """Write the numbers, the table and the plot."""
    table = summary(rows, bench)
    counts = {part: len(bench.data(getattr(options, part))) for part in ("train", "heldout")}
    commits = sorted({row["commit"] for row in rows if row["status"] == "ok"})
    done = Counter(row["head"] for row in rows if row["status"] == "ok")
    fewer = [f"{n} for {head}" for head, n in done.items() if n < options.seeds]
    short = f" ({', '.join(fewer)})" if fewer else ""
    note = (
        f"{options.seeds} seeds{short}, {bench.note.format(steps=options.steps, **counts)}; +- is "
        f"the half width of the 95 % t interval over seeds; commit {', '.join(commits)}. "
        "CPU seconds are of a shared machine: compare them roughly."
    )
    better = beaten(rows, table, bench)
    cells = [{k: v for k, v in row.items() if k not in ("key", "overrides")} for row in rows]
    data = {"note": note, "overrides": list(bench.common), "heads": HEADS}
    known = [{k: _known(v) if isinstance(v, tuple) else v for k, v in row.items()} for row in table]
    data |= {"summary": known, "better_than": better, "cells": cells}
    path = options.out / bench.name
    results.write_json(path.with_suffix(".json"), data)
    told = [f"* `{head}`: {', '.join(others)}" for head, others in better.items() if others]
    text = [markdown(table, bench), f"\n{note}\n", BETTER, *told]
    write_atomically(path.with_suffix(".md"), "\n".join(text) + "\n")
    plot(rows, table, path.with_suffix(".png"), bench)
    print(markdown(table, bench))


def markdown(table: Sequence[Row], bench: Bench = PHOTOS) -> str:
    """Return the summary as a table."""
    lines = [f"| head | {' | '.join(bench.columns)} |", "|---|" + "---:|" * len(bench.columns)]
    for row in table:
        cells = [text(row) for text in bench.columns.values()]
        lines.append(f"| {row['head']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _known(value: tuple[float, float]) -> list[float]:
    """Return what JSON can hold: of one seed the mean alone, which has no interval."""
    return [x for x in value if not math.isnan(x)]


def width(value: tuple[float, float], digits: int = 2) -> str:
    """Return the half width of an interval as text."""
    return "(one seed)" if math.isnan(value[1]) else f"± {value[1]:.{digits}f}"


def plot(rows: Sequence[Row], table: Sequence[Row], path: Path, bench: Bench = PHOTOS) -> None:
    """Draw every seed as a dot, every interval as a bar, beside the use of the codebook."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(9, 0.34 * len(table) + 1.3), sharey=True, width_ratios=(2, 1)
    )
    heads = [row["head"] for row in table][::-1]
    first = bench.scores[0]
    for y, row in enumerate(reversed(table)):
        mean, half = row[first]
        left.plot([mean - half, mean + half], [y, y], color="#9db4c8", linewidth=6, zorder=1)
        dots = [r[first] for r in rows if r["head"] == row["head"] and r["status"] == "ok"]
        left.scatter(dots, [y] * len(dots), color="#1f4e79", s=18, zorder=2)
        right.barh(y, row["entropy_bits"][0], color="#9db4c8", height=0.6)
    low = min(r[first] for r in rows if r["status"] == "ok")
    high = max(r[first] for r in rows if r["status"] == "ok")
    margin = 0.1 * (high - low) + 0.01
    left.set_xlim(low - margin, high + margin)
    left.set_yticks(range(len(heads)), heads)
    left.set_xlabel(f"{bench.label}\n(dots: seeds, bars: 95 % interval)")
    right.set_xlabel("entropy of the tokens, bits of 12")
    right.axvline(12, color="#666666", linewidth=0.8, linestyle=":")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
