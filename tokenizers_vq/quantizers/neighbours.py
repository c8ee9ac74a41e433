"""Codes next to codes: which tokens could be mistaken for each other, and mistaking them.

Reference:
    Qiu et al., Robust Latent Matters: Boosting Image Generation with Sampling Error Synthesis,
    2025, https://arxiv.org/abs/2503.08354, section 3.2 (nearest codes of a table, pFID).
    Ours: neighbours on a grid of codes, and of stacks and groups of heads.
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, check_indices
from tokenizers_vq.functional.radix import pack_digits, unpack_digits
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import float32_island
from tokenizers_vq.quantizers.rows import RowQuantizer


@torch.no_grad()
def perturb(
    head: Quantizer,
    indices: Tensor,
    *,
    rate: float,
    count: int,
    generator: torch.Generator | None = None,
    columns: Sequence[int] | None = None,
) -> Tensor:
    """Return ``indices (B, *grid, K)`` with some tokens replaced by neighbours of theirs.

    Each token is drawn anew with probability ``rate``, evenly from the ``count`` codes nearest to
    its own code, itself included. Works from tokens alone, on any device, with the same draws for
    the same generator. In a stack or group each part draws for itself; -1 stays.

    Args:
        head: whose indices they are.
        indices: ``(B, *grid, K)`` int64.
        rate: probability alpha.
        count: number of neighbours delta.
        generator: of the random numbers; None for torch's global one.
        columns: only these of the K columns change, e.g. one stage of a stack; None for all.

    Raises:
        ConfigError: ``rate`` is no probability, ``count`` is below 1, or codes of the head have no
            neighbours.
        ShapeError: the indices are not those of the head.
    """
    check_draw("perturb", {"rate": rate}, count)
    parts = leaves(head)
    for part in parts:
        check_neighbours("perturb", part)
    check_indices(indices, head.codebook_sizes, "perturb")
    rows = indices.reshape(-1, head.num_codebooks)
    with float32_island(indices.device):
        other = neighbours_of_codes(parts, rows, count, rate, generator)
    if columns is not None:
        keep = torch.ones(head.num_codebooks, dtype=torch.bool, device=indices.device)
        keep[list(columns)] = False
        other = torch.where(keep, rows, other)
    return other.reshape(indices.shape)


def leaves(head: Quantizer) -> list[Quantizer]:
    """Return the heads that a stack or group is made of, in the order of its columns.

    A head whose parts do not have a column each is one itself.
    """
    parts: list[Quantizer] = []
    for child in head.children():
        inside = child if isinstance(child, nn.ModuleList) else [child]
        parts += [part for part in inside if isinstance(part, Quantizer)]
    columns = sum(part.num_codebooks for part in parts)
    if columns == 0 or head.num_codebooks % columns:
        return [head]
    times = head.num_codebooks // columns  # a stack may go through its stages several times
    return [leaf for part in parts for leaf in leaves(part)] * times


def neighbours_of_codes(
    parts: Sequence[Quantizer],
    indices: Tensor,
    count: int,
    rate: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``indices (N, K)`` of ``parts``, each drawn anew with probability ``rate``; -1 stays.

    Args:
        parts: from ``leaves``.
        indices: ``(N, K)`` int64.
        count: see ``neighbours``.
        rate: probability.
        generator: of the random numbers; None for torch's global one.
    """
    columns = []
    sizes = [part.num_codebooks for part in parts]
    for part, column in zip(parts, torch.split(indices, sizes, dim=1), strict=True):
        hit = uniform(indices.shape[:1], indices.device, generator) < rate
        present = (column >= 0).all(1)
        other = neighbours(part, None, column.clamp(min=0), count, generator)
        columns.append(torch.where((hit & present)[:, None], other, column))
    return torch.cat(columns, dim=1)


def neighbours(
    head: Quantizer,
    u: Tensor | None,
    indices: Tensor,
    count: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return one neighbour ``(N, K)`` of each row, drawn evenly from ``count``.

    Args:
        head: one that ``check_neighbours`` lets pass.
        u: ``(N, d)`` float32, where a head that searches a table looks for the nearest codes; None
            for the codes themselves.
        indices: ``(N, K)`` int64; a head with a grid of codes moves these by one step in one
            digit, or leaves them.
        count: number of neighbours, the nearest or the code itself included; cut to what there is.
        generator: of the random numbers; None for torch's global one.
    """
    if not _searches(head):
        return _step(head, indices, count, generator)
    nearest = head.candidates(head.code_vectors(indices) if u is None else u, count)
    draw = uniform(indices.shape[:1], indices.device, generator) * nearest.shape[1]
    pick = draw.long().clamp(max=nearest.shape[1] - 1)
    return nearest[torch.arange(indices.shape[0], device=indices.device), pick]


def check_neighbours(where: str, head: Quantizer) -> None:
    """Raise ``ConfigError`` unless the codes of ``head`` have neighbours."""
    if not _searches(head) and not _is_grid(head):
        raise ConfigError(
            f"{where}: expected a quantizer whose codes have neighbours; "
            f"got {type(head).__name__}, which neither searches a table nor has a grid of codes. "
            "Choose another."
        )


def check_draw(where: str, shares: dict[str, float], count: int) -> None:
    """Raise ``ConfigError`` unless ``shares`` are probabilities and ``count`` is at least 1."""
    for name, value in shares.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ConfigError(
                f"{where}: expected a {name} from 0 to 1; got {value!r}. It is a probability."
            )
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(
            f"{where}: expected a count of at least 1; got {count!r}. "
            "It is the number of neighbours, the code itself included."
        )


def uniform(
    shape: Sequence[int], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Return numbers in [0, 1), the same for the same generator on every device."""
    place = device if generator is None else generator.device
    return torch.rand(tuple(shape), generator=generator, device=place).to(device)


def _step(
    head: Quantizer, indices: Tensor, count: int, generator: torch.Generator | None
) -> Tensor:
    """Move a random digit of each row ``(N, K)`` one step up or down, or leave the row."""
    radices = head.digits
    columns = zip(indices.unbind(1), radices, strict=True)
    digits = torch.cat([unpack_digits(index, sizes) for index, sizes in columns], dim=1)
    top = torch.tensor([size - 1 for sizes in radices for size in sizes], device=digits.device)
    can = torch.cat([digits < top, digits > 0], dim=1)
    choices = (1 + can.sum(1)).clamp(max=count)
    score = uniform(can.shape, digits.device, generator)
    move = torch.where(can, score, -1.0).argmax(1, keepdim=True)
    moves = uniform(choices.shape, digits.device, generator) * choices >= 1
    change = torch.where(move < digits.shape[1], 1, -1) * moves[:, None]
    digits = digits.scatter_add(1, move % digits.shape[1], change)
    parts = torch.split(digits, [len(sizes) for sizes in radices], dim=1)
    packed = [pack_digits(part, sizes) for part, sizes in zip(parts, radices, strict=True)]
    return torch.stack(packed, dim=1)


def _searches(head: Quantizer) -> TypeGuard[RowQuantizer]:
    """Return whether the head knows more than the best choice."""
    if not isinstance(head, RowQuantizer):
        return False
    return type(head).candidates is not RowQuantizer.candidates


def _is_grid(head: Quantizer) -> bool:
    """Return whether indices count steps: made of digits, or each deciding one channel alone."""
    if any(len(sizes) > 1 for sizes in head.digits):
        return True
    if not isinstance(head, RowQuantizer) or len(head.digits) != head.code_dim:
        return False
    if min(head.codebook_sizes) < 2:
        return False
    one = torch.eye(head.code_dim, dtype=torch.int64, device=next(head.buffers()).device)
    moved = head.code_vectors(one) != head.code_vectors(torch.zeros_like(one))
    return bool((moved.sum(0) == 1).all() and (moved.sum(1) == 1).all())
