"""Two processes on one machine that speak to each other, for the tests of what they share."""

from datetime import timedelta

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing


def join_group(rank, folder, seconds):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=seconds),
    )


def run_ranks(function, folder, *args):
    """Run ``function(rank, folder, *args)`` in two processes and wait for both."""
    context = multiprocessing.spawn(function, args=(str(folder), *args), nprocs=2, join=False)
    try:
        for _ in range(60):  # each join waits for one process to end, at most 3 seconds
            if context.join(timeout=3):
                break
        else:
            pytest.fail("two ranks did not finish in 180 seconds")
    finally:
        for process in context.processes:
            process.kill()
