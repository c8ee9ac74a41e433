"""What ``nearest_code.py`` measures: shapes, data sets, training steps, memory.

Run by itself with the name of a memory cell, it prints what one search adds to resident memory.
"""

import json
import resource
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.ops import code_stats, nearest_code

SHAPES = [  # N, K, d
    *[(16384, 1024, d) for d in (8, 16, 32, 64, 256, 512)],
    *[(16384, 8192, d) for d in (8, 16, 32, 64)],
    *[(8192, 8192, d) for d in (256, 512)],
    *[(2048, 65536, d) for d in (8, 16, 32, 64, 256)],
    *[(512, 262144, d) for d in (8, 16, 32, 64, 256)],
]
STEPS = [
    (16384, 1024, 8), (16384, 1024, 64), (8192, 1024, 256),
    (16384, 8192, 8), (4096, 8192, 64), (4096, 8192, 256),
]  # fmt: skip
MEMORY = {"16384 8192 64": 0, "4096 65536 256": 0, "65536 65536 64": 2**31}  # bytes of the cap


def sphere(*shape: int) -> Tensor:
    """Return rows of unit length."""
    return F.normalize(torch.randn(*shape), dim=-1)


def clustered(rows: int, size: int, width: int) -> tuple[Tensor, Tensor]:
    """Return 128 copies of each centre, moved by a thousandth, and rows near them."""
    codes = torch.randn(size // 128, width).repeat(128, 1) + 1e-3 * torch.randn(size, width)
    return codes[torch.randint(size, (rows,))] + 1e-3 * torch.randn(rows, width), codes


DATA: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "normal, d=8": lambda: (torch.randn(1024, 8), torch.randn(8192, 8)),
    "normal, d=256": lambda: (torch.randn(256, 256), torch.randn(8192, 256)),
    "unit sphere": lambda: (sphere(1024, 32), sphere(16384, 32)),
    "mean offset 30": lambda: (torch.randn(1024, 64) + 30, torch.randn(8192, 64) + 30),
    "codebook U(-1/K, 1/K)": lambda: (
        torch.randn(256, 256), (torch.rand(16384, 256) * 2 - 1) / 16384
    ),
    "clustered": lambda: clustered(1024, 8192, 16),
    "duplicated codes": lambda: (torch.randn(1024, 16), torch.randn(2048, 16).repeat(4, 1)),
    "all codes zero": lambda: (torch.randn(1024, 16), torch.zeros(8192, 16)),
    "halves and integers": lambda: (
        torch.randint(-5, 6, (1024, 8)).float() / 2, torch.randint(-2, 3, (8192, 8)).float()
    ),
}  # fmt: skip


def exact(x: Tensor, codebook: Tensor) -> Tensor:
    """Return the lowest index of the smallest float64 distance ``(N,)``, from all pairs."""
    codes = codebook.double()
    rows = max(1, 2**24 // codes.numel())
    return torch.cat(
        [(part.double()[:, None] - codes).square().sum(-1).min(1).indices for part in x.split(rows)]
    )


def op_step(x: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    """Return loss, gradient, counts and sums of one training step, by our ops."""
    index = nearest_code(x.detach(), codebook)[1]
    return _rest(x, codebook, index, code_stats(x, index, codebook.shape[0]))


def addmm_step(x: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    """The same with ``addmm`` and ``argmax``."""
    with torch.no_grad():
        half = -0.5 * codebook.square().sum(1)
        index = torch.addmm(half, x, codebook.T).argmax(1)
        size = codebook.shape[0]
        counts = torch.bincount(index, minlength=size).float()
        sums = torch.zeros_like(codebook).index_add_(0, index, x)
    return _rest(x, codebook, index, (counts, sums))


def _rest(
    x: Tensor, codebook: Tensor, index: Tensor, stats: tuple[Tensor, Tensor]
) -> tuple[Tensor, ...]:
    codes = F.embedding(index, codebook)
    loss = 0.25 * F.mse_loss(x, codes)  # commitment
    out = x + (codes - x).detach()  # straight through
    (gradient,) = torch.autograd.grad(loss + out.mean(), x)
    return loss.detach(), gradient, *stats


def resident() -> int:
    """Return this process's largest resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def virtual() -> int:
    """Return the address space this process uses now, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def main() -> None:
    """Print the bytes that one search adds to what is there with its inputs and outputs."""
    rows, size, width = map(int, sys.argv[1].split())
    torch.set_num_threads(1)
    x, codebook = torch.randn(rows, width), torch.randn(size, width)
    nearest_code(x[:1], codebook[:1])
    before, cap = resident(), MEMORY[sys.argv[1]]
    if cap:
        resource.setrlimit(resource.RLIMIT_AS, (virtual() + cap, resource.RLIM_INFINITY))
    index = nearest_code(x, codebook)[1]
    added = resident() - before - 12 * rows
    allowed = 1.1 * codebook.nbytes + 4 * 2**20
    found = {"added": added, "allowed": allowed, "cap": cap, "used": int(index.unique().numel())}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
