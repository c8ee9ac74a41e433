"""How fast the nearest-code search is, beside peers: ``python -m benchmarks.nearest_code``.

One process, one thread, CPU time, medians of interleaved repeats, so that load and clock speed
cancel in the ratios. ``cache gemm`` is a product of 512 x 512 matrices in this run, close to
the most that float32 reaches here. GF/s = 2 N K d / seconds: the arithmetic of the distances only.
faiss-cpu is compared where it is installed; for its best set ``OPENBLAS_CORETYPE=SkylakeX``.
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tokenizers_vq.functional import nearest
from tokenizers_vq.ops import library, nearest_code
from tokenizers_vq.ops.nearest_code import KERNELS

CHUNK = 2**21  # scores that the chunked torch form holds at a time
SHAPES = {  # N, K, d
    "quick": [(4096, 1024, 8), (4096, 8192, 8), (2048, 8192, 64), (1024, 8192, 256)],
    "full": [
        *[(16384, 1024, d) for d in (8, 16, 32, 64, 256, 512)],
        *[(32768, 8192, d) for d in (8, 16, 32, 64, 256)],
        *[(2048, 65536, d) for d in (8, 64, 256)],
        *[(512, 262144, d) for d in (8, 32)],
    ],
}
Method = Callable[[Tensor, Tensor], object]


def pinned(isa: str) -> Method:
    """Return the search with one instruction set."""

    def search(x: Tensor, codebook: Tensor) -> object:
        os.environ[library.OVERRIDE] = isa
        return nearest_code(x, codebook)

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


def methods() -> dict[str, Method]:
    """Return what is compared, by name."""
    found: dict[str, Method] = {"sgemm": lambda x, c: [p @ c.T for p in x.split(1024)]}
    found |= {"chunked": chunked, "cdist": with_cdist, "torch form": nearest.nearest_code}
    if importlib.util.find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(1)

        def with_faiss(x: Tensor, codebook: Tensor) -> object:
            return faiss.knn(x.numpy(), codebook.numpy(), 1)

        found["faiss"] = with_faiss
    return found | {isa: pinned(isa) for isa in KERNELS.names if isa != "generic"}


def seconds(todo: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median CPU seconds of each call, all interleaved."""
    taken: dict[str, list[float]] = {name: [] for name in todo}
    for repeat in range(repeats + 1):
        for name, call in todo.items():
            start = time.process_time()
            call()
            if repeat:  # the first round warms up
                taken[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def measure(rows: int, size: int, width: int, repeats: int) -> dict[str, float]:
    """Return GF/s by method for one shape; ``cache gemm`` is a product from cache."""
    x, codebook = torch.randn(rows, width), torch.randn(size, width)
    square = torch.randn(512, 512)
    todo = {
        name: lambda method=method: method(x, codebook)  # type: ignore[misc]
        for name, method in methods().items()
    }
    times = seconds({"cache gemm": lambda: [square @ square for _ in range(8)], **todo}, repeats)
    work = dict.fromkeys(todo, 2e-9 * rows * size * width) | {"cache gemm": 2e-9 * 8 * 512**3}
    return {name: work[name] / times[name] for name in times}


def main() -> None:
    """Print one line per shape, and the ratios that the bars are about."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all shapes: takes minutes")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for count, shape in enumerate(SHAPES["full" if options.full else "quick"]):
        speed = measure(*shape, options.repeats)
        best = max(value for name, value in speed.items() if name.startswith("avx"))
        if count == 0:
            print(
                "| N | K | d |",
                " | ".join(speed),
                "| best/cache gemm | best/sgemm | best/chunked |",
            )
            print("|" + "---|" * (len(speed) + 6))
        ratios = [best / speed[name] for name in ("cache gemm", "sgemm", "chunked")]
        cells = [str(n) for n in shape] + [f"{value:.0f}" for value in speed.values()]
        print("|", " | ".join(cells + [f"{ratio:.2f}" for ratio in ratios]), "|", flush=True)


if __name__ == "__main__":
    main()
