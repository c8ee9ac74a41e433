"""The scales of a multi-scale head: their grids, their convolutions, their inner heads."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.binary_mapper import BinaryMapper
from tokenizers_vq.quantizers.dithered_fsq import DitheredFSQ
from tokenizers_vq.quantizers.flat import Tokens, mean_square, mean_terms
from tokenizers_vq.quantizers.fsp import FSP
from tokenizers_vq.quantizers.gumbel import Gumbel
from tokenizers_vq.quantizers.perturbed import refuse_perturbed
from tokenizers_vq.quantizers.rows import RowQuantizer, row_parts
from tokenizers_vq.quantizers.stages import quantize_stage, settles

TINY = 5e-324  # the least number above 0
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


def checked_heads(inner: Sequence[Quantizer], scales: int, width: int | None) -> list[RowQuantizer]:
    """Return the inner heads, if they fit.

    Args:
        inner: one head for all scales, or one for each.
        scales: number of scales.
        width: of all of them; None for that of the first.

    Raises:
        ConfigError: another number of heads than 1 or ``scales``, heads that do not fit, or one
            that adds noise or draws codes in training.
    """
    if len(inner) not in (1, scales):
        raise ConfigError(
            f"MultiScale: expected 1 inner head or {scales}, one per scale; got {len(inner)}. "
            "Give one to share, or one for each."
        )
    heads = row_parts(inner, "MultiScale")
    refuse_perturbed(heads, "MultiScale")
    _refuse_noisy(heads)
    width = heads[0].dim if width is None else width
    if {head.dim for head in heads} != {width}:
        raise ConfigError(
            f"MultiScale: expected inner heads of width {width}; got "
            f"{[head.dim for head in heads]}. Give each that dim, or set code_dim."
        )
    if len({head.codebook_sizes for head in heads}) != 1:
        raise ConfigError(
            "MultiScale: expected inner heads with the same codebook sizes; got "
            f"{[head.codebook_sizes for head in heads]}. Tokens of all scales share one table."
        )
    return heads


def check_ranges(**options: tuple[float, float, float]) -> None:
    """Raise ``ConfigError`` unless each option's value lies between its lowest and highest."""
    for option, (value, low, high) in options.items():
        if low <= value <= high:
            continue
        wanted = f"{option} in {low}..{high}" if low != TINY else f"a {option} above 0"
        raise ConfigError(f"MultiScale: expected {wanted}; got {value}. Correct it.")


def inner_losses(
    heads: Sequence[RowQuantizer], rows: list[Tensor], columns: list[Tensor], used: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the inner heads' own loss, each on all of its tokens, and its terms.

    Args:
        heads: one for all scales, or one for each.
        rows: ``(B, n, d)`` of each scale, divided by its factor.
        columns: their indices ``(B, n, K)``.
        used: ``(B, L)`` bool, which tokens of all scales count.
    """
    use = list(torch.split(used, [row.shape[1] for row in rows], dim=1))
    if len(heads) == 1:
        rows, columns, use = [torch.cat(rows, 1)], [torch.cat(columns, 1)], [used]
    flats = []
    for head, row, index, valid in zip(heads, rows, columns, use, strict=True):
        flat, tokens = row.reshape(-1, row.shape[-1]), tokens_of(valid)
        if settles(type(head)):  # it need not search again
            chosen = index.reshape(-1, index.shape[-1])
            flats.append(quantize_stage(head, flat, tokens, chosen))
        else:
            flats.append(head.quantize_rows(flat, flat, tokens))
    terms = mean_terms([flat.terms for flat in flats])
    loss = torch.stack([flat.loss for flat in flats]).mean()
    return loss, {f"inner/{name}": term for name, term in terms.items()}


def tokens_of(valid: Tensor) -> Tokens:
    """Return what is known about the flat rows of tokens ``(B, n)``, given which are valid."""
    item = torch.arange(valid.shape[0], device=valid.device)[:, None].expand(valid.shape)
    return Tokens(valid.reshape(-1), item.reshape(-1), valid.shape[0])


def masked_error(a: Tensor, b: Tensor, active: Tensor) -> Tensor:
    """Return the mean square of ``a - b (B, d, *grid)`` over ``active (B, positions)``."""
    rows = [x.flatten(2).mT.flatten(0, 1) for x in (a, b)]
    return mean_square(rows[0], rows[1], active.reshape(-1))


def _refuse_noisy(inner: Sequence[RowQuantizer]) -> None:
    """Raise for heads whose training output is not the code: it would not be seen here."""
    for part in (inside for head in inner for inside in head.modules()):
        draws = getattr(part, "sample_temperature", 0) > 0 or getattr(part, "noise", False)
        if isinstance(part, BinaryMapper | Gumbel | DitheredFSQ | FSP) or draws:
            raise ConfigError(
                "MultiScale: expected inner heads without noise in training; got "
                f"{type(part).__name__}. Turn it off, or choose another head."
            )
