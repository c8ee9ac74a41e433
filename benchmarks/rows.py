"""The heads that benchmarks/quantizers.py compares: ours and the peer's, with the same options."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import vector_quantize_pytorch as peer
from torch import Tensor, nn

from tokenizers_vq import registry

WIDTH = 32
DEPTH = 8  # stages of the residual stacks
LEVELS = {2**10: [4] * 5, 2**13: [8, 8, 8, 4, 4], 2**16: [4] * 8, 2**18: [8] * 6}
EMA = {"name": "vq", "codebook_update": "ema", "restart_threshold": 0.0}
SIXTEEN = (2**10, 2**13, 2**16)
EIGHTEEN = (*SIXTEEN, 2**18)
SAME = {"decay": 0.99, "commitment_weight": 0.25, "rotation_trick": False}


@dataclass(frozen=True)
class Row:
    """One pair of heads.

    Attributes:
        title: what both sides do.
        ours: plain config of a head with K codes.
        theirs: the peer's head with K codes.
        sizes: numbers of codes K to measure.
        table: whether there is a table of codes to search; the memory bar is about those.
        bits: whether the latent width is log2(K) instead of ``WIDTH``.
    """

    title: str
    ours: Callable[[int], dict[str, Any]]
    theirs: Callable[[int], nn.Module]
    sizes: tuple[int, ...] = EIGHTEEN
    table: bool = False
    bits: bool = False

    def width(self, size: int) -> int:
        """Return the latent width D."""
        return bits_of(size) if self.bits else WIDTH


def bits_of(size: int) -> int:
    """Return log2 of a power of two."""
    return int(math.log2(size))


def stack(size: int) -> dict[str, Any]:
    """Return a residual stack of moving-average codebooks."""
    stages = {"repeat": DEPTH, "of": {**EMA, "codebook_size": size}}
    return {"name": "residual", "stages": stages}


def binary(name: str, **options: float) -> Callable[[int], dict[str, Any]]:
    """Return what makes the config of an LFQ or BSQ head with ``size`` codes."""
    options = {"commitment_weight": 0.25, "inverse_temperature": 100.0, **options}
    return lambda size: {"name": name, "bits": bits_of(size), **options}


def peer_binary(**options: Any) -> Callable[[int], nn.Module]:
    """Return what makes the peer's LFQ head with ``size`` codes."""
    return lambda size: peer.LFQ(codebook_size=size, commitment_loss_weight=0.25, **options)


def peer_vq(**options: Any) -> Callable[[int], nn.Module]:
    """Return what makes the peer's VQ head with ``size`` codes."""
    return lambda size: peer.VectorQuantize(dim=WIDTH, codebook_size=size, **options)


ROWS = {
    "vq": Row(
        "VQ, moving averages, straight-through",
        lambda size: {**EMA, "codebook_size": size},
        peer_vq(**SAME),
        table=True,
    ),
    "vq_defaults": Row(
        "VQ, each library's defaults",
        lambda size: {"name": "vq", "codebook_size": size},
        peer_vq(),
        sizes=SIXTEEN,
        table=True,
    ),
    "vq_cosine": Row(
        "cosine VQ, moving averages, straight-through",
        lambda size: {**EMA, "codebook_size": size, "metric": "cosine"},
        peer_vq(use_cosine_sim=True, **SAME),
        sizes=SIXTEEN,
        table=True,
    ),
    "rvq8": Row(
        f"residual VQ, {DEPTH} stages, moving averages, straight-through",
        stack,
        lambda size: peer.ResidualVQ(dim=WIDTH, num_quantizers=DEPTH, codebook_size=size, **SAME),
        sizes=SIXTEEN,
        table=True,
    ),
    "simvq": Row(
        "SimVQ, straight-through",
        lambda size: {"name": "simvq", "codebook_size": size},
        lambda size: peer.SimVQ(dim=WIDTH, codebook_size=size, rotation_trick=False),
    ),
    "fsq": Row(
        "FSQ with linear maps from and to the latent width",
        lambda size: {"name": "fsq", "levels": LEVELS[size]},
        lambda size: peer.FSQ(levels=LEVELS[size], dim=WIDTH),
    ),
    "lfq": Row("LFQ", binary("lfq"), peer_binary(), bits=True),
    "lfq_tenth": Row(
        "LFQ; the peer's entropy from a random tenth of the tokens, ours from all",
        binary("lfq"),
        peer_binary(frac_per_sample_entropy=0.1),
        bits=True,
    ),
    "bsq": Row("BSQ", binary("bsq"), peer_binary(spherical=True), bits=True),
}


def build(row: Row, side: str, size: int) -> nn.Module:
    """Return the head of one side, the same at every call."""
    torch.manual_seed(0)
    if side == "theirs":
        return row.theirs(size)
    head: nn.Module = registry.build("quantizer", row.ours(size), dim=row.width(size))
    return head


def step(head: nn.Module, side: str, mode: str, z: Tensor, g: Tensor) -> None:
    """Do what one batch costs: a training step without optimizer, or an encoding.

    The peer updates its codebook inside forward, ours in ``update``; both are in the time.
    """
    if mode == "encode":
        with torch.no_grad():
            _ = head.encode(z) if side == "ours" else head(z)
        return
    z = z.detach().requires_grad_()
    out = head(z)
    if side == "ours":
        ((out.z_q * g).sum() + out.loss).backward()
        head.update(z, out.indices)
    else:
        loss = out[2].sum() if len(out) > 2 else 0.0
        ((out[0] * g).sum() + loss).backward()
    head.zero_grad(set_to_none=True)
