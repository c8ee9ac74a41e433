"""Seconds to encode and decode with DAC here and in the authors' package, on the same weights.

    python benchmarks/audio_codecs.py --width 64 --seconds 1 -o benchmarks/results/audio_codecs.json

The weights are random: the time does not depend on them. Calls of both take turns, and the median
of each is reported. Threads are torch's; set OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tokenizers_vq import from_published

RATE = 44100


def build(width: int) -> tuple[Any, Any, dict[str, Any]]:
    """Return the package's model, ours with its weights, and the constructor values."""
    warnings.simplefilter("ignore")
    import dac

    values: dict[str, Any] = {"encoder_dim": width, "decoder_dim": 24 * width}
    values |= {"n_codebooks": 9, "sample_rate": RATE}
    torch.manual_seed(0)
    theirs = dac.DAC(**values).eval()
    return theirs, from_published("dac", theirs.state_dict(), values), values


def take_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


@torch.no_grad()
def measure(width: int, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Return one row per direction: seconds of both and how many times faster ours is."""
    theirs, ours, _ = build(width)
    x = 0.3 * torch.randn(1, 1, int(seconds * RATE)).clamp(-3, 3)
    padded = theirs.preprocess(x, RATE)
    codes = ours.encode(x)
    _, expected, *_ = theirs.encode(padded)
    same = float((codes.indices.mT == expected).float().mean())
    rows = []
    for name, calls in {
        "encode": {"package": lambda: theirs.encode(padded), "ours": lambda: ours.encode(x)},
        "decode": {
            "package": lambda: theirs.decode(theirs.quantizer.from_codes(expected)[0]),
            "ours": lambda: ours.decode(codes),
        },
    }.items():
        found = take_turns(calls, rounds)
        ratio = found["package"] / found["ours"]
        rows.append({"direction": name, "width": width, "seconds": seconds, **found,
                     "ratio": ratio, "same_codes": same})  # fmt: skip
    return rows


def main() -> None:
    """Measure, print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64, help="of the encoder; 64 is published")
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", type=Path, default=None)
    given = parser.parse_args()
    rows = [row for s in given.seconds for row in measure(given.width, s, given.rounds)]
    for row in rows:
        print(" ".join(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
                       for key, value in row.items()))  # fmt: skip
    if given.o is not None:
        text = {"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}
        given.o.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
