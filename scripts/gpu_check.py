"""The ops on a GPU against the CPU, bit by bit, and the search's time against torch's.

Run by ``scripts/gpu_check.sh``: ``python scripts/gpu_check.py [--device cuda] [--rows 1000000]``.
With ``--device cpu`` it checks itself: what needs a GPU is left out.
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tokenizers_vq.ops import code_stats, largest_product, nearest_code, residual_codes
from tokenizers_vq.ops.library import TRITON, active_cuda
from tokenizers_vq.ops.nearest_code import NO_CUDA

SHAPES = ((1024, 8), (8192, 32), (8192, 64), (1024, 256), (1024, 512))  # codes, channels
REPEATS = 10
GROUPS = 4


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def same(mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> bool:
    """Return whether all tensors agree bit by bit."""
    return all(torch.equal(a.cpu(), b) for a, b in zip(mine, theirs, strict=True))


def grouped(x: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    """Search groups of rows, each in its own part of the codebook."""
    rows = x[: len(x) // GROUPS * GROUPS].view(GROUPS, -1, x.shape[1])
    return nearest_code(rows, codebook.view(GROUPS, -1, x.shape[1]))


def stacked(x: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    """Search three codebooks one after the other."""
    return (residual_codes(x, [codebook, codebook / 4, codebook[: len(codebook) // 2] / 16]),)


def counted(x: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    """Search, then add up rows by code."""
    return code_stats(x, nearest_code(x, codebook)[1], codebook.shape[0])


CALLS: tuple[Callable[[Tensor, Tensor], tuple[Tensor, ...]], ...] = (
    nearest_code,
    largest_product,
    grouped,
    stacked,
    counted,
)
if active_cuda(NO_CUDA)[0] == TRITON:
    CALLS = CALLS[:-1]  # code_stats is torch's then, which adds in any order


def agrees(x: Tensor, codebook: Tensor, device: str) -> list[bool]:
    """Compare each call with that of the CPU, also on a stream of its own and in a CUDA graph."""
    right = []
    for call in CALLS:
        expected, inputs = call(x, codebook), (x.to(device), codebook.to(device))
        good = same(call(*inputs), expected)
        if device != "cpu":
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                good &= same(call(*inputs), expected)
            good &= same(replayed(call, *inputs), expected)
        right.append(good)
    return right


def replayed(
    call: Callable[[Tensor, Tensor], tuple[Tensor, ...]], x: Tensor, codebook: Tensor
) -> tuple[Tensor, ...]:
    """Call inside a CUDA graph that was captured with other rows."""
    rows = torch.zeros_like(x)
    call(rows, codebook)  # loads the kernels
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call(rows, codebook)
    rows.copy_(x)
    graph.replay()
    torch.cuda.synchronize()
    return found


def milliseconds(work: Callable[[], object], device: str) -> float:
    """Return the mean time of one call."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    work()
    wait()
    start = time.perf_counter()
    for _ in range(REPEATS):
        work()
    wait()
    return (time.perf_counter() - start) / REPEATS * 1e3


def unfused(x: Tensor, codebook: Tensor) -> Tensor:
    """Return the indices as torch alone finds them: the whole matrix of scores, then argmin."""
    half = codebook.square().sum(-1) / 2
    return torch.addmm(half, x, codebook.T, alpha=-1).argmin(1)


def main() -> int:
    """Print two tables and return how many calls disagreed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=1_000_000)
    asked = parser.parse_args()
    if asked.device != "cpu" and (NO_CUDA or not torch.cuda.is_available()):
        say(f"gpu_check: expected CUDA kernels and a GPU; got none ({NO_CUDA or 'no GPU'}).")
        return 2
    wrong = 0
    say("Same bits as the CPU:\n")
    say(f"| rows | codes | channels | {' | '.join(call.__name__ for call in CALLS)} |")
    say("|---|---|---|" + "---|" * len(CALLS))
    for codes, channels in SHAPES:
        rows = max(GROUPS, asked.rows * 8 // channels)
        codebook = torch.randn(codes, channels)
        codebook[-1] = codebook[0]
        right = agrees(torch.randn(rows, channels), codebook, asked.device)
        wrong += right.count(False)
        cells = " | ".join("yes" if good else "NO" for good in right)
        say(f"| {rows} | {codes} | {channels} | {cells} |")
    say("\n| rows | codes | channels | ours, ms | addmm + argmin, ms | ratio |")
    say("|---|---|---|---|---|---|")
    rows = min(asked.rows, 65536)
    torch.set_float32_matmul_precision("high")  # the best torch can do: TF32
    for codes, channels in SHAPES:
        x = torch.randn(rows, channels, device=asked.device)
        codebook = torch.randn(codes, channels, device=asked.device)
        ours = milliseconds(lambda x=x, c=codebook: nearest_code(x, c), asked.device)
        torchs = milliseconds(lambda x=x, c=codebook: unfused(x, c), asked.device)
        say(f"| {rows} | {codes} | {channels} | {ours:.3f} | {torchs:.3f} | {torchs / ours:.2f} |")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
