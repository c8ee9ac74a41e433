"""Sums over the ranks of a run, decided at the moment of the call.

Lightning builds modules before it starts the process group, so nothing here is decided earlier.
Without a process group, or with one rank, every function returns its input.
"""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """Return the number of ranks that take part right now; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the sums over all ranks of float32 tensors, in one fused reduction, without gradient.

    Every rank has to call it with the same shapes, with zeros where it has nothing to add.
    """
    if world_size() == 1:
        return tensors
    fused = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
    dist.all_reduce(fused)
    parts = torch.split(fused, [tensor.numel() for tensor in tensors])
    return tuple(part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True))


def total_over_ranks(x: Tensor) -> Tensor:
    """Return the sum of ``x`` over all ranks, with gradient.

    For losses that every rank computes from the same total. Their gradient with respect to the
    total is the same on each rank, so its sum over ranks is the local one times the number of
    ranks, and the mean that data-parallel training takes afterwards gives the gradient of one
    process with the joined batch. No communication is needed on the way back.
    """
    if world_size() == 1:
        return x
    total: Tensor = _Total.apply(x)
    return total


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * world_size()


def closest_over_ranks(distances: Tensor, rows: Tensor) -> Tensor:
    """Return for each of K places the row of the rank where it is closest, the same everywhere.

    Args:
        distances: ``(K,)`` float32, this rank's; infinite where it has no row. Of equal ones the
            lowest rank wins.
        rows: ``(K, d)`` float32, finite.

    Returns:
        ``(K, d)``.
    """
    rank = dist.get_rank() if world_size() > 1 else 0
    table = distances.new_zeros(world_size(), distances.shape[0])
    table[rank] = distances
    winner = sum_over_ranks(table)[0].argmin(0)
    return sum_over_ranks(torch.where((winner == rank)[:, None], rows, 0.0))[0]


def gather_rows(rows: Tensor, limit: int) -> Tensor:
    """Return rows of all ranks in rank order, the same tensor on every rank.

    Args:
        rows: ``(n, d)`` float32; every rank has its own ``n``, also 0.
        limit: at most this many rows of all ranks together take part, evenly spaced. So the result
            is what one process with the joined rows would take.

    Returns:
        ``(m, d)``, ``m`` the smaller of ``limit`` and the number of rows.
    """
    counts = torch.zeros(world_size(), device=rows.device)
    rank = dist.get_rank() if world_size() > 1 else 0
    counts[rank] = rows.shape[0]
    (counts,) = sum_over_ranks(counts)
    total, first = int(counts.sum()), int(counts[:rank].sum())
    picks = (
        torch.linspace(0, total - 1, min(limit, total), dtype=torch.float64).round().long() - first
    )
    mine = (picks >= 0) & (picks < rows.shape[0])
    pool = rows.new_zeros(picks.numel(), rows.shape[1])
    pool[mine.to(rows.device)] = rows[picks[mine].to(rows.device)]
    return sum_over_ranks(pool)[0]
