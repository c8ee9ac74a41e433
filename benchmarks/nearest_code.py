"""How fast, exact and frugal the nearest-code search is, beside what people use.

    OMP_NUM_THREADS=1 python benchmarks/nearest_code.py --full

One thread on one core, CPU time, medians of repeats in which all methods take turns, so that load
and clock speed cancel in the ratios. GF/s = 2 N K d / seconds: the arithmetic of the distances
only; packing and norms are charged to every method on every call. ``peak`` is a loop of
multiply-adds in registers in the same process. Finished cells are kept in the JSON file: start the
command again after a break; --seconds stops it early, --again NAME measures cells anew.
Peers: ``pip install -e '.[dev,bench]'``.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nearest_code_cells import DATA, MEMORY, SHAPES, STEPS, addmm_step, exact, op_step
from nearest_code_table import markdown
from torch import Tensor

from tokenizers_vq.evaluation.results import environment
from tokenizers_vq.files import write_atomically
from tokenizers_vq.ops import library, nearest_code
from tokenizers_vq.ops.nearest_code import KERNELS

HERE = Path(__file__).resolve().parent
CHUNK = 2**21  # scores that the chunked torch forms hold at a time
ONE_HOT = 2**27  # most scores for the peer that holds several N x K tensors
PEAK_ROUNDS = 2_000_000
Cell = dict[str, Any]
Call = Callable[[], object]


def pinned(isa: str, x: Tensor, codebook: Tensor) -> Call:
    """Return the search with one instruction set."""
    other = codebook.clone()
    books = [codebook, other]

    def search() -> object:
        os.environ[library.OVERRIDE] = isa
        books.reverse()
        books[0][0, 0] += 1e-3  # a codebook in training: no packed one is used again
        return nearest_code(x, books[0])

    return search


def chunked(x: Tensor, codebook: Tensor) -> Tensor:
    """Search with the best expression of plain torch; float32 decides, so not exact."""
    half = -0.5 * codebook.square().sum(1)
    parts = x.split(max(1, CHUNK // codebook.shape[0]))
    return torch.cat([torch.addmm(half, part, codebook.T).argmax(1) for part in parts])


def with_cdist(x: Tensor, codebook: Tensor) -> Tensor:
    """Search as most repositories do, but in chunks of rows, to fit in memory."""
    parts = x.split(max(1, CHUNK // codebook.shape[0]))
    return torch.cat([torch.cdist(part, codebook).argmin(1) for part in parts])


def with_faiss(x: Tensor, codebook: Tensor) -> Tensor:
    """Search with faiss on one thread."""
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")  # faiss's best; read when it is loaded
    import faiss

    faiss.omp_set_num_threads(1)
    return torch.from_numpy(faiss.knn(x.numpy(), codebook.numpy(), 1)[1][:, 0])


def with_vqp(x: Tensor, codebook: Tensor) -> Call:
    """Return the evaluation forward of vector-quantize-pytorch."""
    from vector_quantize_pytorch import VectorQuantize

    head = VectorQuantize(dim=x.shape[1], codebook_size=codebook.shape[0]).eval()

    @torch.no_grad()
    def forward() -> object:
        return head(x[None])

    return forward


def peaks() -> dict[str, Callable[[int], object]]:
    """Compile the loops of multiply-adds; return those that this machine has, by name."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "peak.so"
        command = [os.environ.get("CXX", "g++"), "-O2", "-shared", "-fPIC"]
        subprocess.run([*command, str(HERE / "fma_peak.cpp"), "-o", str(target)], check=True)
        loops = ctypes.CDLL(str(target))
    for isa, lanes in (("avx2", 8), ("avx512", 16)):
        if isa in KERNELS.names:
            call = getattr(loops, f"fma_peak_{isa}")
            call.argtypes, call.restype = [ctypes.c_long], ctypes.c_double
            found[f"peak {isa}"] = (call, 2e-9 * 12 * lanes * PEAK_ROUNDS)
    return found


def medians(todo: dict[str, Call], repeats: int) -> dict[str, float]:
    """Return the median CPU seconds of each call; all take turns, the first round warms up."""
    taken: dict[str, list[float]] = {name: [] for name in todo}
    for repeat in range(repeats + 1):
        for name, call in todo.items():
            start = time.process_time()
            call()
            if repeat:
                taken[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def speed(shape: tuple[int, int, int]) -> Cell:
    """Return GF/s by method for one shape ``N, K, d``."""
    torch.manual_seed(0)
    rows, size, width = shape
    x, codebook = torch.randn(rows, width), torch.randn(size, width)
    work = 2e-9 * rows * size * width
    todo: dict[str, tuple[Call, float]] = {
        name: (lambda call=call: call(PEAK_ROUNDS), flops)
        for name, (call, flops) in peaks().items()
    }
    block = max(1, CHUNK // size)
    todo["sgemm"] = (lambda: [part @ codebook.T for part in x.split(block)], work)
    for name, search in (("chunked", chunked), ("cdist", with_cdist), ("faiss", with_faiss)):
        todo[name] = (lambda search=search: search(x, codebook), work)
    few = x[: max(64, min(rows, ONE_HOT // 8 // size))]
    todo["vq-pytorch"] = (with_vqp(few, codebook), work * few.shape[0] / rows)
    for isa in KERNELS.names[1:]:
        todo[isa] = (pinned(isa, x, codebook), work)
    repeats = 7 if work < 2 else 5 if work < 20 else 3
    times = medians({name: call for name, (call, _) in todo.items()}, repeats)
    return {name: todo[name][1] / seconds for name, seconds in times.items()}


def accuracy(name: str) -> Cell:
    """Return, for one data set, wrong rows against float64 and GF/s of every form."""
    torch.manual_seed(0)
    x, codebook = DATA[name]()
    truth = exact(x, codebook)
    work = 2e-9 * x.shape[0] * codebook.numel()
    cell: Cell = {"rows": x.shape[0], "size": list(codebook.shape)}
    for peer, search in (("cdist", with_cdist), ("chunked", chunked), ("faiss", with_faiss)):
        cell[peer] = {"wrong": int((search(x, codebook) != truth).sum())}
    for isa in (library.TORCH, *KERNELS.names):
        os.environ[library.OVERRIDE] = isa
        search = nearest_code
        if isa == library.TORCH:
            from tokenizers_vq.functional.nearest import nearest_code as search
        call = partial(search, x, codebook)
        seconds = medians({isa: call}, 3)[isa]
        wrong = int((call()[1] != truth).sum())
        cell[isa] = {"wrong": wrong, "gflops": work / seconds}
    return cell


def step(shape: tuple[int, int, int]) -> Cell:
    """Return CPU seconds of a training step by the op, by addmm, and of the search alone."""
    torch.manual_seed(0)
    rows, size, width = shape
    x, codebook = torch.randn(rows, width, requires_grad=True), torch.randn(size, width)
    os.environ[library.OVERRIDE] = KERNELS.preferred
    search = pinned(KERNELS.preferred, x.detach(), codebook)
    ours, theirs = op_step(x, codebook), addmm_step(x, codebook)
    difference = max(float((a - b).abs().max()) for a, b in zip(ours[:3], theirs[:3], strict=True))
    todo = {
        "search": search,
        "step": lambda: op_step(x, codebook.add_(1e-6)),  # no packed codebook is used again
        "addmm step": lambda: addmm_step(x, codebook),
    }
    return medians(todo, 5) | {"difference": difference}


def memory(name: str) -> Cell:
    """Return what a search adds to resident memory, in a process of its own."""
    command = [sys.executable, str(HERE / "nearest_code_cells.py"), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr[-300:]}
    found: Cell = json.loads(done.stdout)
    return found


def cells(full: bool) -> dict[str, Callable[[], Cell]]:
    """Return what there is to measure, by name."""
    shapes = SHAPES if full else SHAPES[:2]
    steps = STEPS if full else STEPS[:1]
    todo: dict[str, Callable[[], Cell]] = {}
    for shape in shapes:
        todo["speed " + " ".join(map(str, shape))] = lambda shape=shape: speed(shape)
    for shape in steps:
        todo["step " + " ".join(map(str, shape))] = lambda shape=shape: step(shape)
    for name in DATA:
        todo[f"data {name}"] = lambda name=name: accuracy(name)
    for name in MEMORY if full else ():
        todo[f"memory {name}"] = lambda name=name: memory(name)
    return todo


def machine() -> str:
    """Return the processor's name and number of logical cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    numbers = [
        next(text.partition(":")[2].strip() for text in lines if text.startswith(key))
        for key in ("cpu family", "model\t")
    ]
    return f"{names[0]}, family {numbers[0]}, model {numbers[1]}, {os.cpu_count()} logical cores"


def main() -> None:
    """Measure what is missing in the JSON file, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all shapes: takes minutes")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no cell after this long")
    parser.add_argument("--again", default="-", help="measure cells anew that start like this")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "nearest_code.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    data: Cell = json.loads(options.out.read_text()) if options.out.is_file() else {"cells": {}}
    data["cells"] = {k: v for k, v in data["cells"].items() if not k.startswith(options.again)}
    data |= {"machine": machine(), "environment": environment("cpu")}
    data["preferred"] = KERNELS.preferred
    start = time.monotonic()
    for name, measure in cells(options.full).items():
        if name not in data["cells"] and time.monotonic() - start < options.seconds:
            data["cells"][name] = measure() | {"commit": data["environment"]["commit"]}
            print(name, data["cells"][name], flush=True)
            write_atomically(options.out, json.dumps(data, indent=1) + "\n")
            write_atomically(options.out.with_suffix(".md"), markdown(data))


if __name__ == "__main__":
    main()
