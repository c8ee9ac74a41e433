"""The op on a GPU against the CPU, bit by bit, and its time against torch's.

Run by ``scripts/gpu_check.sh``: ``python scripts/gpu_check.py [--device cuda] [--rows 1000000]``.
With ``--device cpu`` it checks itself: what needs a GPU is left out.
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tokenizers_vq.ops import code_stats, nearest_code
from tokenizers_vq.ops.nearest_code import NO_CUDA

SHAPES = ((1024, 8), (8192, 32), (8192, 64), (1024, 256), (1024, 512))  # codes, channels
REPEATS = 10


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def same(mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> bool:
    """Return whether all tensors agree bit by bit."""
    return all(torch.equal(a.cpu(), b) for a, b in zip(mine, theirs, strict=True))


def agrees(rows: int, codes: int, channels: int, device: str) -> bool:
    """Compare search and statistics with those of the CPU, also on a stream of their own."""
    x, codebook = torch.randn(rows, channels), torch.randn(codes, channels)
    codebook[-1] = codebook[0]
    expected = nearest_code(x, codebook)
    stats = code_stats(x, expected[1], codes)
    x, codebook = x.to(device), codebook.to(device)
    found = nearest_code(x, codebook)
    right = same(found, expected) and same(code_stats(x, found[1], codes), stats)
    if device != "cpu":
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            right &= same(nearest_code(x, codebook), expected)
        right &= same(replayed(x, codebook), expected)
    return right


def replayed(x: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    """Search inside a CUDA graph that was captured with other rows."""
    rows = torch.zeros_like(x)
    nearest_code(rows, codebook)  # loads the kernels
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = nearest_code(rows, codebook)
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
    """Print two tables and return how many shapes disagreed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=1_000_000)
    asked = parser.parse_args()
    if asked.device != "cpu" and (NO_CUDA or not torch.cuda.is_available()):
        say(f"gpu_check: expected CUDA kernels and a GPU; got none ({NO_CUDA or 'no GPU'}).")
        return 2
    wrong = 0
    say("| rows | codes | channels | same bits as the CPU |\n|---|---|---|---|")
    for codes, channels in SHAPES:
        rows = max(1, asked.rows * 8 // channels)
        right = agrees(rows, codes, channels, asked.device)
        wrong += not right
        say(f"| {rows} | {codes} | {channels} | {'yes' if right else 'NO'} |")
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
