"""Gradients of several processes, averaged once per optimizer step.

``DistributedDataParallel`` averages while a backward pass runs and expects one pass per forward.
A GAN step has two, each for one half of the parameters, and accumulation has several; there it
stops with errors or averages too often. So it is told not to, and the averaging is done here.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tokenizers_vq.functional.distributed import world_size

CHUNK = 2**25  # numbers per reduction: 128 MB of float32


@contextmanager
def local_gradients(model: nn.Module | None) -> Iterator[None]:
    """Keep backward passes inside the ``with`` block from averaging, if ``model`` would."""
    if isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        yield


@torch.no_grad()
def average_gradients(model: nn.Module | None, parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over processes, if ``model`` leaves that to us.

    Args:
        model: what the strategy made of the module.
        parameters: the same on every process; those without a gradient are left out.
    """
    if not isinstance(model, DistributedDataParallel) or world_size() == 1:
        return
    chunk: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        full = chunk and sum(map(torch.numel, chunk)) + parameter.numel() > CHUNK
        if full or (chunk and chunk[0].dtype != parameter.grad.dtype):
            _reduce(chunk)
            chunk = []
        chunk.append(parameter.grad)
    if chunk:
        _reduce(chunk)


def _reduce(gradients: list[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / world_size()
    dist.all_reduce(flat)
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, mean in zip(gradients, torch.split(flat, sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))
