"""Measure CPU time and memory of our heads beside those of vector-quantize-pytorch.

    OMP_NUM_THREADS=1 python benchmarks/quantizers.py

Every measurement is a process of its own, forked after the imports: its peak memory is its own.
Ours and theirs take turns, on one thread, and CPU seconds are counted, so that other work on the
machine disturbs both alike. Finished cells are kept in the JSON file: start the command again
after a break, or with --again NAME to measure some anew.
"""

import argparse
import ctypes
import json
import math
import multiprocessing
import os
import resource
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rows import ROWS, Row, build, step
from table import markdown

from tokenizers_vq.evaluation.results import environment
from tokenizers_vq.files import write_atomically

HERE = Path(__file__).resolve().parent / "results"
TOKENS = 8192
ITEMS = 8
PROBE = 256  # tokens of the run that says whether all of them fit
SHORTEST = 0.3  # CPU seconds in one process: short steps are repeated
Cell = dict[str, Any]


def peak_mib() -> float:
    """Return this process's largest resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """Give free memory back and start the peak anew: what was freed before would hide a need."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM, which ru_maxrss is made of


def work(row: Row, side: str, size: int, mode: str, tokens: int, pipe: Any) -> None:
    """Measure in a process of its own; send CPU seconds per step and extra memory in MiB."""
    torch.set_num_threads(1)
    small = row.sizes[0]  # what torch and the peer load at the first call is not measured
    z = torch.randn(ITEMS, 8, row.width(small))
    step(build(row, side, small).train(mode == "train"), side, mode, z, z)
    forget_peak()
    before = peak_mib()
    head = build(row, side, size).train(mode == "train")
    z, g = torch.randn(2, ITEMS, tokens // ITEMS, row.width(size)).unbind()
    seconds: list[float] = []
    while sum(seconds) < SHORTEST and len(seconds) < 50:
        start = time.process_time()
        step(head, side, mode, z, g)
        seconds.append(time.process_time() - start)
    pipe.send({"seconds": seconds, "mib": peak_mib() - before})


def measure(name: str, side: str, size: int, mode: str, tokens: int) -> Cell:
    """Return what ``work`` measured."""
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe()
    process = context.Process(target=work, args=(ROWS[name], side, size, mode, tokens, its))
    process.start()
    its.close()
    try:
        found: Cell = mine.recv()
    except EOFError:
        found = {"seconds": [], "mib": math.nan}
    process.join()
    if not found["seconds"]:
        raise SystemExit(f"{name} {side} K={size} {mode}: the process ended without a result")
    return found


def fitting_tokens(probe: Cell, limits: tuple[float, float]) -> int:
    """Return how many tokens stay within MiB and seconds: TOKENS, or a smaller power of two."""
    tokens = TOKENS
    while tokens > PROBE:
        growth = tokens / PROBE
        if min(probe["seconds"]) * growth < limits[1] and probe["mib"] * growth < limits[0]:
            break
        tokens //= 2
    return tokens


def line(small: float, large: float, tokens: int) -> float:
    """Return the value at TOKENS on the line through those at ``tokens / 2`` and ``tokens``."""
    return large + (large - small) * (TOKENS - tokens) / (tokens / 2)


def summary(runs: list[Cell], half: list[Cell], tokens: int) -> Cell:
    """Return best and median CPU seconds and the memory of one side at TOKENS tokens."""
    seconds = [second for run in runs for second in run["seconds"]]
    measured = {
        "best_s": min(seconds),
        "median_s": statistics.median(min(run["seconds"]) for run in runs),
        "mib": max(run["mib"] for run in runs),
    }
    cell = {"tokens": tokens, "runs": len(runs), "measured": measured, **measured}
    if half:
        at_half = summary(half, [], tokens // 2)
        # more tokens never take less: the line falls where the smaller size was measured too high
        cell |= {
            key: max(value, line(at_half[key], value, tokens)) for key, value in measured.items()
        }
    return cell


def compare(name: str, size: int, mode: str, options: argparse.Namespace) -> Cell:
    """Return one cell of the table: both sides, in turns."""
    limits = {"ours": 5 * options.seconds, "theirs": options.seconds}
    tokens = {}
    for side, seconds in limits.items():
        probe = measure(name, side, size, mode, PROBE)
        tokens[side] = fitting_tokens(probe, (options.gib * 1024, seconds))
    runs: dict[str, list[Cell]] = {"ours": [], "theirs": []}
    half: dict[str, list[Cell]] = {"ours": [], "theirs": []}
    for turn in range(options.rounds):
        for side in ("ours", "theirs"):
            runs[side].append(measure(name, side, size, mode, tokens[side]))
            if tokens[side] < TOKENS and turn == 0:
                half[side].append(measure(name, side, size, mode, tokens[side] // 2))
    return {side: summary(runs[side], half[side], tokens[side]) for side in runs}


def cells() -> list[tuple[str, int, str]]:
    """Return the name, number of codes and mode of every cell."""
    return [
        (name, size, mode)
        for name, row in ROWS.items()
        for size in row.sizes
        for mode in ("train", "encode")
        if not (name == "lfq_tenth" and mode == "encode")
    ]


def machine() -> str:
    """Return the processor's name and number of logical cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} logical cores"


def save(path: Path, data: Cell, options: argparse.Namespace) -> None:
    """Write the JSON file and the table."""
    data["limits"] = {"gib": options.gib, "seconds": options.seconds, "rounds": options.rounds}
    write_atomically(path, json.dumps(data, indent=1) + "\n")
    write_atomically(path.with_suffix(".md"), markdown(data))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="rows to measure, comma-separated")
    parser.add_argument("--again", default="", help="rows to measure anew, comma-separated")
    parser.add_argument("--rounds", type=int, default=3, help="processes per side of a cell")
    parser.add_argument("--gib", type=float, default=14, help="memory one process may take")
    parser.add_argument("--seconds", type=float, default=4, help="of a step; five times for ours")
    parser.add_argument("--out", type=Path, default=HERE / "quantizers.json")
    return parser.parse_args()


def main() -> None:
    """Measure every missing cell, writing the results after each."""
    options = arguments()
    data = json.loads(options.out.read_text()) if options.out.exists() else {"cells": {}}
    data |= {"environment": environment("cpu"), "machine": machine()}
    data["peer"] = version("vector-quantize-pytorch")
    again, only = options.again.split(","), options.only.split(",")
    for name, size, mode in cells():
        key = f"{name} {size} {mode}"
        wanted = not options.only or name in only
        if not wanted or (key in data["cells"] and name not in again):
            continue
        cell = data["cells"][key] = compare(name, size, mode, options)
        cell["commit"] = data["environment"]["commit"]
        ratio = cell["theirs"]["best_s"] / cell["ours"]["best_s"]
        print(f"{key}: {ratio:.2f} x less CPU time", flush=True)
        save(options.out, data, options)
    save(options.out, data, options)


if __name__ == "__main__":
    main()
