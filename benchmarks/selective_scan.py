"""Time, memory and error of the selective scan beside the naive loop and the package mambapy.

    OMP_NUM_THREADS=1 python benchmarks/selective_scan.py -o benchmarks/results/selective_scan

B = 1, float32, CPU seconds of one thread, the best of a few; calls of all take turns. Memory is the
peak of resident memory above what it was before the call. Errors are the largest difference
from a float64 loop divided by its largest value, over outputs and all gradients. The naive loop
that indexes (h = a[:, t] * h + b[:, t]) is not run with gradients above 512 steps: its memory and
time grow with the square. SSD is another model, with one decay per head: the price of Mamba-2.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.functional.ssd import ssd
from tokenizers_vq.ops.selective_scan import compiled, selective_scan

Inputs = tuple[Tensor, ...]
STATES, HEAD = 16, 32
INDEXED = 512  # longest with gradients


def inputs(length: int, width: int, kind: torch.dtype = torch.float32) -> Inputs:
    """Return u, delta, a, b, c with the decays of Mamba's beginning."""
    torch.manual_seed(0)
    u, delta = torch.randn(1, length, width), torch.randn(1, length, width) - 4
    a = -torch.arange(1.0, STATES + 1).expand(width, STATES).contiguous()
    b, c = torch.randn(2, 1, length, STATES)
    return tuple(x.to(kind) for x in (u, delta, a, b, c))


def terms(u: Tensor, delta: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return decays and inputs of the states, ``(B, L, D, N)``."""
    delta = torch.nn.functional.softplus(delta)
    return (delta[..., None] * a).exp(), (delta * u)[..., None] * b[:, :, None]


def indexed(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Loop over time that indexes the large tensors."""
    decay, more = terms(u, delta, a, b)
    h, ys = torch.zeros_like(decay[:, 0]), []
    for t in range(u.shape[1]):
        h = decay[:, t] * h + more[:, t]
        ys.append((h * c[:, t, None]).sum(-1))
    return torch.stack(ys, 1)


def unbound(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Loop over time with one unbind, whose gradients take linear time."""
    decay, more = terms(u, delta, a, b)
    h, hs = torch.zeros_like(decay[:, 0]), []
    for factor, x in zip(decay.unbind(1), more.unbind(1), strict=True):
        h = factor * h + x
        hs.append(h)
    return (torch.stack(hs, 1) @ c[..., None])[..., 0]


def mambapy(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Do what the package does in its selective scan."""
    from mambapy.pscan import pscan

    return (pscan(*terms(u, delta, a, b)) @ c[..., None])[..., 0]


def ours_torch(*parts: Tensor) -> Tensor:
    """Run the torch form."""
    return selective_scan(*parts, backend="torch")[0]


def ours_compiled(*parts: Tensor) -> Tensor:
    """Run the compiled form."""
    return selective_scan(*parts, backend="compiled")[0]


def ours_ssd(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Run Mamba-2 at the same size, one decay per head."""
    heads = u.shape[-1] // HEAD
    step = torch.nn.functional.softplus(delta[..., :heads])
    x = u.unflatten(-1, (heads, HEAD)) * step[..., None]
    return ssd(x, step * a[:heads, 0], b[:, :, None], c[:, :, None])[0].flatten(2)


FORMS: dict[str, Callable[..., Tensor]] = {
    "compiled": ours_compiled, "torch": ours_torch, "ssd": ours_ssd, "unbind": unbound,
    "mambapy": mambapy, "indexed": indexed,
}  # fmt: skip


def call(name: str, parts: Inputs, gradients: bool) -> list[Tensor]:
    """Return the output, and with ``gradients`` those of all inputs for its sum of squares."""
    parts = tuple(x.detach().requires_grad_(gradients) for x in parts)
    y = FORMS[name](*parts)
    if not gradients:
        return [y]
    return [y.detach(), *torch.autograd.grad(y.square().sum(), parts, allow_unused=True)]


def left_out(name: str, length: int, gradients: bool) -> bool:
    """Whether a form is not run there."""
    missing = name == "compiled" and not compiled()
    return missing or (name == "indexed" and gradients and length > INDEXED)


def seconds(length: int, width: int, gradients: bool, rounds: int) -> dict[str, float]:
    """Return CPU seconds of every form, which take turns."""
    parts = inputs(length, width)
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name in FORMS:
            if not left_out(name, length, gradients):
                start = time.process_time()
                call(name, parts, gradients)
                best[name] = min(best.get(name, 1e9), time.process_time() - start)
    return best


def megabytes(name: str, length: int, width: int, gradients: bool) -> float:
    """Return the peak of resident memory during one call above what it was before it."""
    parts = inputs(length, width)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    call(name, parts, gradients)
    return (resident("VmHWM") - before) / 1024


def resident(what: str) -> int:
    """Return a line of the process's status, in KB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])


def errors(length: int, width: int) -> dict[str, float]:
    """Return the largest relative error of outputs and gradients of every form of this model."""
    expected = call("unbind", inputs(length, width, torch.float64), True)
    found = {}
    for name in FORMS:
        if name != "ssd" and not left_out(name, length, True):
            got = call(name, inputs(length, width), True)
            found[name] = max(
                float((x - y).abs().max() / y.abs().max())
                for x, y in zip(got, expected, strict=True)
            )
    return found


def markdown(rows: list[dict[str, Any]], wrong: dict[str, float], about: str) -> str:
    """Return the tables as a page."""
    lines = ["# Selective scan", "", about, ""]
    for what, unit in (("ms", "CPU milliseconds"), ("mb", "Peak memory above the start, MB")):
        lines += [f"## {unit}", "", "| L | D | gradients | " + " | ".join(FORMS) + " |"]
        lines += ["|---:|---:|---|" + "---:|" * len(FORMS)]
        for row in (row for row in rows if row[what]):
            cells = [f"{row[what][n]:.3g}" if n in row[what] else "" for n in FORMS]
            yes = "yes" if row["gradients"] else "no"
            lines.append(f"| {row['L']} | {row['D']} | {yes} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["## Largest relative error, outputs and gradients, L = 512, D = 192", ""]
    lines += [f"* {name}: {value:.1e}" for name, value in wrong.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--memory", type=int, nargs="+", default=[1024, 4096], help="lengths")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", type=Path, default=None, help="path without its suffix")
    given = parser.parse_args()
    rows = []
    for length in given.lengths:
        for gradients in (False, True):
            found = seconds(length, given.width, gradients, given.rounds)
            measured = found if gradients and length in given.memory else {}
            used = {name: megabytes(name, length, given.width, gradients) for name in measured}
            rows.append({"L": length, "D": given.width, "gradients": gradients,
                         "ms": {n: 1000 * s for n, s in found.items()}, "mb": used})  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    wrong = errors(512, given.width)
    about = (
        f"`OMP_NUM_THREADS=1 python benchmarks/selective_scan.py`, torch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}, B = 1, N = {STATES}, float32, best of "
        f"{given.rounds}, on a machine that was not quiet."
    )
    page = markdown(rows, wrong, about)
    print(page)
    if given.o is not None:
        text = json.dumps({"about": about, "rows": rows, "errors": wrong}, indent=1)
        given.o.with_suffix(".json").write_text(text + "\n")
        given.o.with_suffix(".md").write_text(page)


if __name__ == "__main__":
    main()
