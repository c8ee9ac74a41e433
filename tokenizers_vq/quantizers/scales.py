"""The scales of a multi-scale head: their grids, their convolutions, their inner heads."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.base import Quantizer, refuse_on_grid
from tokenizers_vq.quantizers.dithered_fsq import DitheredFSQ
from tokenizers_vq.quantizers.fsp import FSP
from tokenizers_vq.quantizers.gumbel import Gumbel
from tokenizers_vq.quantizers.perturbed import refuse_perturbed

SMOOTH = {1: "linear", 2: "bicubic", 3: "trilinear"}  # how a scale is brought up, by rank


def proportional(scales: Sequence[tuple[int, ...]], grid: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return ``scales``, made for latents on the last of them, for latents on ``grid``.

    A side s becomes ``max(1, floor(s * side / base + 1/2))``, in integer arithmetic.
    """
    return [
        tuple(
            max(1, (2 * s * side + base) // (2 * base))
            for s, side, base in zip(scale, grid, scales[-1], strict=True)
        )
        for scale in scales
    ]


def phi_of_scales(scales: int, convs: int) -> list[int]:
    """Return for each scale which of ``convs`` convolutions it uses, at most one per scale.

    Four are shared as in the released model: scale s of S lies at ``s / (S - 1)``, the convolutions
    evenly from 1/12 to 11/12, and the nearest is used, of equally near ones the first. Other
    numbers take equally many scales each: ``floor(s convs / S)``.
    """
    if convs != 4:
        return [scale * convs // scales for scale in range(scales)]
    ticks = torch.linspace(1 / 12, 11 / 12, convs, dtype=torch.float64)
    places = torch.arange(scales, dtype=torch.float64) / max(scales - 1, 1)
    return [int((ticks - place).abs().argmin()) for place in places]


def checked_grids(scales: Sequence[int | Sequence[int]], axes: int | None) -> list[tuple[int, ...]]:
    """Return the scales as grids, all of one rank.

    Args:
        scales: from coarse to fine, each a side for all axes or one side per axis.
        axes: rank of the grids; None for that of ``scales`` or else 2.

    Raises:
        ConfigError: they differ in rank, shrink, or have a side below 1.
    """
    given = [scale for scale in scales if isinstance(scale, Sequence)]
    rank = axes or (len(given[0]) if given else 2)
    grids = [tuple(s) if isinstance(s, Sequence) else (s,) * rank for s in scales]
    sides = [side for grid in grids for side in grid]
    fits = bool(grids) and rank in SMOOTH and all(len(grid) == rank for grid in grids)
    grows = all(a <= b for x, y in pairwise(grids) for a, b in zip(x, y, strict=False))
    if not (fits and grows and all(isinstance(side, int) and side > 0 for side in sides)):
        raise ConfigError(
            f"MultiScale: expected scales of 1 to 3 axes that never shrink; got {list(scales)} "
            f"with axes {axes}. List them from coarse to fine, e.g. [1, 2, 4]."
        )
    return grids


def checked_width(inner: Sequence[Quantizer], scales: int, width: int | None) -> int:
    """Return the width of the inner heads.

    Raises:
        ConfigError: another number of heads than 1 or ``scales``, heads that do not fit, or one
            that adds noise or draws codes in training.
    """
    if len(inner) not in (1, scales):
        raise ConfigError(
            f"MultiScale: expected 1 inner head or {scales}, one per scale; got {len(inner)}. "
            "Give one to share, or one for each."
        )
    refuse_on_grid(inner, "MultiScale")
    refuse_perturbed(inner, "MultiScale")
    _refuse_noisy(inner)
    width = width or inner[0].dim
    if {head.dim for head in inner} != {width}:
        raise ConfigError(
            f"MultiScale: expected inner heads of width {width}; got "
            f"{[head.dim for head in inner]}. Give each that dim, or set code_dim."
        )
    if len({head.codebook_sizes for head in inner}) != 1:
        raise ConfigError(
            "MultiScale: expected inner heads with the same codebook sizes; got "
            f"{[head.codebook_sizes for head in inner]}. Tokens of all scales share one table."
        )
    return width


def _refuse_noisy(inner: Sequence[Quantizer]) -> None:
    """Raise for heads whose training output is not the code: it would not be seen here."""
    for part in (inside for head in inner for inside in head.modules()):
        draws = getattr(part, "sample_temperature", 0) > 0 or getattr(part, "noise", False)
        if isinstance(part, Gumbel | DitheredFSQ | FSP) or draws:
            raise ConfigError(
                "MultiScale: expected inner heads without noise in training; got "
                f"{type(part).__name__}. Turn it off, or choose another head."
            )
