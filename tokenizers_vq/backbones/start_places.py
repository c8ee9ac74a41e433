"""First weights of a transformer whose rows attend to what is near: squares, and latents."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizers_vq.backbones.transformer import Transformer

AMPLITUDE = 2.0  # of the sines: near rows then stand out of the content of the squares
FINER = 4  # points per square along a side, of which the places of latents are means


@torch.no_grad()
def start_in_place(transformer: Transformer, squares: Tensor, latents: Tensor, side: int) -> None:
    """Start positions from sines and keys from the queries, so that near rows attend to each other.

    The first latent stands for the whole picture, the next four for its quarters, and so on down to
    one per square, each level in random order; a short prefix then covers all of it. From normal
    positions a small transformer takes thousands of steps to find out which latent is whose; the
    choice is ours, after Trockman and Kolter.

    Args:
        transformer: its keys get the weights of its queries.
        squares: ``(side**2, W)``, written over; nothing is if W is no multiple of 4.
        latents: ``(N, W)``, written over.
        side: squares along a side of the picture.

    Reference:
        Trockman and Kolter, Mimetic Initialization of Self-Attention Layers, 2023,
        https://arxiv.org/abs/2305.09828, section 3.
    """
    width = squares.shape[-1]
    if squares.is_meta or width % 4:
        return
    squares.copy_(sines(side, side, width).flatten(1).T)
    fine = sines(FINER * side, side, width)
    levels: list[Tensor] = []
    cells = 1
    order = torch.Generator().manual_seed(0)  # a latent has one place in encoder and decoder
    while sum(len(level) for level in levels) < len(latents):
        means = F.adaptive_avg_pool2d(fine, cells).flatten(1).T  # (cells**2, W)
        levels.append(means[torch.randperm(len(means), generator=order)])
        cells = min(2 * cells, side)
    latents.copy_(torch.cat(levels)[: len(latents)])
    for block in transformer.blocks:
        weight = block.get_parameter("attn.qkv.weight")
        weight[width : 2 * width] = weight[:width]


def sines(points: int, finest: int, width: int) -> Tensor:
    """Return sines and cosines of both coordinates of a grid, ``(width, points, points)``.

    Their frequencies go in even ratios from half a wave to ``finest / 2`` waves across the grid.
    """
    centres = (torch.arange(points) + 0.5) / points
    waves = math.pi * torch.logspace(0, math.log10(finest), width // 4)
    angles = waves[:, None] * centres  # (W / 4, points)
    both = torch.cat([angles.sin(), angles.cos()])  # (W / 2, points)
    shape = (-1, points, points)
    grid = torch.cat([both[:, :, None].expand(shape), both[:, None, :].expand(shape)])
    return AMPLITUDE * math.sqrt(2) * grid
