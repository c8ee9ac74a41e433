"""What a tokenizer makes of a data set: the indices, and what each codebook got to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError, DataError, check_shape
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.factorized import FactorizedVQ
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.rows import RowQuantizer
from tokenizers_vq.quantizers.simvq import SimVQ
from tokenizers_vq.quantizers.vq import VectorQuantizer
from tokenizers_vq.tokenizer import Tokenizer

TABLES = (VectorQuantizer, FactorizedVQ, SimVQ)  # heads whose codes are the rows of ``codes()``
ROWS_PER_CODE = 4  # latents kept for each code of a head: enough to draw new codes from


class DataLike(Protocol):
    """What the doctor needs of a data set; ``SignalDataset`` is one."""

    ids: list[str]

    def __getitem__(self, index: int) -> Tensor:
        """Return a signal ``(C, *S)``."""


@dataclass(frozen=True)
class Part:
    """A head that is not made of other heads.

    Attributes:
        path: where it is in the quantizer, ``""`` for the quantizer itself.
        head: the head; a stack that uses it again names it again.
        start: its first column of the indices.
    """

    path: str
    head: Quantizer
    start: int

    @property
    def columns(self) -> range:
        """Its columns of the indices."""
        return range(self.start, self.start + self.head.num_codebooks)


@dataclass
class Error:
    """A running relative error: what is left over, and how far the latents spread."""

    rows: int = 0
    left: list[float] = field(default_factory=list)
    total: Tensor | None = None
    square: float = 0.0

    def add(self, u: Tensor, outputs: list[Tensor]) -> None:
        """Add rows ``u (N, d)`` and what stands for them, after each level ``(N, d)``."""
        sums = [float((u - out).double().square().sum()) for out in outputs]
        self.left = [a + b for a, b in zip(self.left or [0.0] * len(sums), sums, strict=True)]
        column = u.double().sum(0)
        self.total = column if self.total is None else self.total + column
        self.square += float(u.double().square().sum())
        self.rows += u.shape[0]

    @property
    def shares(self) -> list[float]:
        """Squared error after each level over the variance of the latents."""
        if self.total is None or not self.rows:
            return []
        spread = self.square - float(self.total.square().sum()) / self.rows
        return [left / max(spread, 1e-12) for left in self.left]


@dataclass
class Survey:
    """What a tokenizer made of a data set.

    Attributes:
        tokenizer: the one.
        items: indices ``(*grid, K)`` int64 of each item, on the CPU.
        errors: by path of a head with a table of codes, or of a residual stack.
        latents: by path of a head, a sample ``(N, d)`` of what it quantized.
    """

    tokenizer: Tokenizer
    items: list[Tensor] = field(default_factory=list)
    errors: dict[str, Error] = field(default_factory=dict)
    latents: dict[str, list[Tensor]] = field(default_factory=dict)

    @property
    def rows(self) -> Tensor:
        """The indices ``(N, K)`` of all positions."""
        return torch.cat([item.reshape(-1, item.shape[-1]) for item in self.items])

    def counts(self, part: Part) -> Tensor:
        """Return how often each code of a head with one codebook occurred, ``(size,)`` int64."""
        size = part.head.codebook_sizes[0]
        columns = [one.start for one in parts(self.tokenizer.quantizer) if one.head is part.head]
        found = self.rows[:, columns].reshape(-1)
        return torch.bincount(found[found >= 0], minlength=size)


def parts(quantizer: Quantizer) -> list[Part]:
    """Return the innermost heads in the order of their columns.

    A quantizer whose columns are not those of its inner heads counts as one.
    """
    found = _inner("", quantizer)
    sizes = tuple(size for _, head in found for size in head.codebook_sizes)
    if sizes != quantizer.codebook_sizes:
        return [Part("", quantizer, 0)]
    starts, start = [], 0
    for _, head in found:
        starts.append(start)
        start += head.num_codebooks
    return [Part(path, head, at) for (path, head), at in zip(found, starts, strict=True)]


def has_table(head: Quantizer) -> bool:
    """Whether the codes of a head are the rows of a learned table, one index each."""
    return type(head) in TABLES


def codes_of(head: Quantizer) -> Tensor:
    """Return the table ``(K, d)`` float32 of a head for which ``has_table`` holds."""
    if not isinstance(head, VectorQuantizer | SimVQ):
        raise ConfigError(
            f"doctor: expected a head with a table of codes; got {type(head).__name__}. "
            "Choose vq, factorized or simvq."
        )
    return head.codes().detach()


@torch.no_grad()
def survey(
    tokenizer: Tokenizer,
    dataset: DataLike,
    *,
    limit: int | None = None,
    progress: bool = False,
) -> Survey:
    """Encode a data set, item by item, and keep what a doctor asks for.

    Args:
        tokenizer: in evaluation.
        dataset: items ``(C, *S)`` in the signal's range; they may differ in size.
        limit: look at that many items, evenly spread; None for all.
        progress: show a bar on a terminal.

    Raises:
        DataError: there is no item.
        ConfigError: ``limit`` is below 1, or the tokenizer has no codes.
        ShapeError: an item has another rank or number of channels.
    """
    from tqdm import tqdm

    if not tokenizer.quantizer.codebook_sizes:
        raise ConfigError(
            "doctor: expected a tokenizer with codes; got the continuous head "
            f"{type(tokenizer.quantizer).__name__}. Fit token_bridge or revq to it first (tvq fit)."
        )
    chosen = _chosen(len(dataset.ids), limit)
    dims = f"B {tokenizer.signal.channels} " + " ".join("THW"[-tokenizer.signal.axes :])
    found = Survey(tokenizer)
    device = next(tokenizer.parameters()).device
    bar = tqdm(chosen, unit="item", leave=False, disable=None if progress else True)
    with _watched(found, len(chosen)):
        for index in bar:
            x = dataset[index][None].to(device)
            check_shape(x, dims, "doctor", "Give data of the tokenizer's kind.")
            z = tokenizer.encoder(tokenizer.encoder.frame(x))
            found.items.append(tokenizer.quantizer.encode(z)[0].cpu())
    return found


def _chosen(total: int, limit: int | None) -> list[int]:
    if not total:
        raise DataError("doctor: expected at least one item; got none. Check the folder.")
    if limit is not None and limit < 1:
        raise ConfigError(f"doctor: expected a limit of at least 1; got {limit}. Raise it.")
    count = total if limit is None else min(limit, total)
    return [total * k // count for k in range(count)]


def _inner(path: str, head: Quantizer) -> list[tuple[str, Quantizer]]:
    """Return the innermost heads of ``head`` with their paths; a stack may go through them again.

    Heads may lie in lists of modules, which are no heads themselves.
    """
    direct: list[tuple[str, Quantizer]] = []
    for name, module in head.named_modules(remove_duplicate=False):
        inside = any(name.startswith(f"{outer}.") for outer, _ in direct)
        if isinstance(module, Quantizer) and module is not head and not inside:
            direct.append((name, module))
    if not direct:
        return [(path, head)]
    prefix = f"{path}." if path else ""
    once = [leaf for name, inner in direct for leaf in _inner(prefix + name, inner)]
    return once * int(getattr(head, "repeat", 1))


@contextmanager
def _watched(found: Survey, items: int) -> Iterator[None]:
    """Record what the searches of heads with a table and of residual stacks see and choose."""
    heads = {
        part.path: part.head
        for part in parts(found.tokenizer.quantizer)
        if isinstance(part.head, RowQuantizer) and has_table(part.head)
    }
    for path, module in found.tokenizer.quantizer.named_modules():
        if isinstance(module, Residual):
            heads[path] = module
    try:
        for path, head in heads.items():
            vars(head)["code_indices"] = _recorder(found, path, head, items)
            vars(head)["plain_table"] = lambda: None  # or a stack searches past its stages
        yield
    finally:
        for head in heads.values():
            for name in ("code_indices", "plain_table"):
                vars(head).pop(name, None)


def _recorder(
    found: Survey, path: str, head: RowQuantizer, items: int
) -> Callable[[Tensor], Tensor]:
    search = head.code_indices
    error = found.errors.setdefault(path, Error())
    generator = torch.Generator().manual_seed(0)

    def code_indices(u: Tensor) -> Tensor:
        indices = search(u)
        if isinstance(head, Residual):
            error.add(u, _prefixes(head, indices))
            return indices
        rows = F.normalize(u, dim=-1) if getattr(head, "metric", "") == "cosine" else u
        error.add(rows, [head.code_vectors(indices)])
        most = -(-ROWS_PER_CODE * head.codebook_sizes[0] // items)
        picked = torch.randperm(len(rows), generator=generator)[:most].to(rows.device)
        found.latents.setdefault(path, []).append(rows[picked])
        return indices

    return code_indices


def _prefixes(head: Residual, indices: Tensor) -> list[Tensor]:
    """Return what the first 1, 2, ... stages of a stack make of its ``indices (N, K)``."""
    stages: list[Any] = list(head.stages) * int(getattr(head, "repeat", 1))
    outputs, column = [], 0
    for stage in stages:
        column += stage.num_codebooks
        prefix = indices.clone()
        prefix[:, column:] = -1
        outputs.append(head.code_vectors(prefix))
    return outputs
