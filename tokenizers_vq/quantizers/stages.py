"""What stacks of stages share: beam search, random depths, prefixes of indices.

Reference:
    Babenko and Lempitsky, Additive Quantization for Extreme Vector Compression, 2014,
    https://doi.org/10.1109/CVPR.2014.124, section 3.2 (beam search);
    Zeghidour et al., SoundStream, 2021, https://arxiv.org/abs/2107.03312, section III.C (depths).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.quantizers.flat import Flat, Tokens, linear
from tokenizers_vq.quantizers.rows import RowQuantizer

CHUNK = 2**22  # numbers in the sums that a beam compares at a time: 16 MiB of float32

# propose(stage, u (N, d), out (N, d), count): columns (N, C, k) and what they add, (N, C, d)
Propose = Callable[[int, Tensor, Tensor, int], tuple[Tensor, Tensor]]


def beam_search(propose: Propose, u: Tensor, depth: Tensor, count: int, beam: int) -> Tensor:
    """Return the indices ``(N, K)`` of the sum of codes that came nearest to ``u``.

    After each stage the ``beam`` partial sums nearest to ``u`` go on. Among equally near ones
    those that came from a better partial sum, then those of a better code. A row that stops early
    gets the path that was best at its own depth, and -1 from there on.

    Args:
        propose: the choices of a stage for rows of ``u`` that have sums ``out`` so far.
        u: ``(N, d)`` float32.
        depth: ``(N,)``, after how many stages each row stops, at least 1.
        count: number of stages.
        beam: number of partial sums kept.
    """
    if torch.compiler.is_compiling():  # a graph with any number of rows has no loop over them
        return _beam_rows(propose, u, depth, count, beam)
    rows = max(1, CHUNK // (beam * beam * u.shape[1]))
    parts = zip(torch.split(u, rows), torch.split(depth, rows), strict=True)
    return torch.cat([_beam_rows(propose, part, stop, count, beam) for part, stop in parts])


def draw_depth(
    tokens: Tokens,
    least: int,
    count: int,
    dropout: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``(N,)``: after how many of ``count`` stages each row stops.

    Args:
        tokens: which item of the batch each row belongs to; rows of one item stop together.
        least: the smallest depth drawn.
        count: number of stages, and the depth of items that are not cut.
        dropout: probability that an item is cut to a depth drawn evenly from ``least..count``.
        generator: of the random numbers, on any device; None for torch's global one.
    """
    device = tokens.item.device
    place = device if generator is None else generator.device
    if dropout == 0:
        return torch.full_like(tokens.item, count)
    cut = torch.randint(least, count + 1, (tokens.batch,), generator=generator, device=place)
    whole = torch.rand(tokens.batch, generator=generator, device=place) >= dropout
    return torch.where(whole, count, cut).to(device)[tokens.item]


def fill_prefix(indices: Tensor, count: int) -> Tensor:
    """Return ``indices (..., k)``, the leading columns of ``count``, filled up with -1.

    Raises:
        ShapeError: there is no column.
    """
    if indices.ndim < 1 or indices.shape[-1] < 1:
        raise ShapeError(
            f"decode: expected indices of shape (B, *grid, 1 to {count}); "
            f"got {tuple(indices.shape)}."
        )
    missing = count - indices.shape[-1]
    if missing <= 0:
        return indices
    return torch.cat([indices, indices.new_full((*indices.shape[:-1], missing), -1)], dim=-1)


def quantize_stage(
    stage: RowQuantizer, rest: Tensor, tokens: Tokens, chosen: Tensor | None
) -> Flat:
    """Quantize ``rest (N, D)`` by one stage, at the indices ``chosen`` where there are any.

    Args:
        stage: the head of this stage.
        rest: what the stages before left over; only losses send a gradient through it.
        tokens: with ``valid`` False for rows that stopped earlier.
        chosen: ``(N, K)``, a beam's choice, -1 for rows that stopped earlier; None for the stage's.
    """
    if chosen is None:
        return stage.quantize_rows(rest, rest.detach(), tokens)
    u, source = linear(stage.project_in, rest), linear(stage.project_in, rest.detach())
    flat = stage.settle(u, source, chosen.clamp(min=0), tokens)
    return replace(flat, out=linear(stage.project_out, flat.out))


def settles(kind: type) -> bool:
    """Whether ``settle`` of a head does all that its ``quantize`` does after the choice."""
    methods = ("quantize", "quantize_rows")
    owners = [next(cls for cls in kind.__mro__ if name in vars(cls)) for name in methods]
    return "settle" in vars(owners[0]) and owners[1] is RowQuantizer


def plain_tables(stages: Sequence[RowQuantizer]) -> list[Tensor]:
    """Return the table ``(K, d)`` of each stage; nothing where one is not a plain search in one.

    A head says so by a method ``plain_table``; see ``VectorQuantizer``.
    """
    found = [getattr(stage, "plain_table", lambda: None)() for stage in stages]
    tables = [table.detach() for table in found if table is not None]
    return tables if len(tables) == len(stages) else []


def _beam_rows(propose: Propose, u: Tensor, depth: Tensor, count: int, beam: int) -> Tensor:
    rows, width = u.shape
    sums = u.new_zeros(rows, 1, width)
    paths = torch.empty(rows, 1, 0, dtype=torch.int64, device=u.device)
    best = paths[:, 0]
    for stage in range(count):
        kept = sums.shape[1]
        origin = u[:, None].expand(-1, kept, -1).reshape(-1, width)
        columns, codes = propose(stage, origin, sums.reshape(-1, width), beam)
        choices = codes.shape[1]
        codes = codes.reshape(rows, kept, choices, width)
        sums = (sums[:, :, None] + codes).flatten(1, 2)
        error = (u[:, None] - sums).square().sum(-1)
        order = error.argsort(dim=1, stable=True)[:, :beam]
        columns = columns.reshape(rows, kept * choices, columns.shape[2])
        paths = torch.cat([paths.repeat_interleave(choices, dim=1), columns], dim=2)
        sums, paths = _pick(sums, order), _pick(paths, order)
        fill = best.new_full((rows, columns.shape[2]), -1)
        longer = torch.cat([best, fill], dim=1)
        best = torch.where((depth > stage)[:, None], paths[:, 0], longer)
    return best


def _pick(values: Tensor, order: Tensor) -> Tensor:
    """Return ``values (N, M, w)`` at ``order (N, m)`` as ``(N, m, w)``."""
    return values.gather(1, order[:, :, None].expand(-1, -1, values.shape[2]))
