"""Giving a tokenizer other tables of codes, and the index maps that lead to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.bitstream import CountPrior
from tokenizers_vq.doctor.survey import Part, Survey, codes_of, parts
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.codebook import affine_map
from tokenizers_vq.functional.index_map import IndexMap, IndexMaps
from tokenizers_vq.quantizers.record import without_records
from tokenizers_vq.quantizers.simvq import SimVQ
from tokenizers_vq.quantizers.vq import VectorQuantizer
from tokenizers_vq.tokenizer import Tokenizer

ROWS = ("codebook", "cluster_size", "cluster_sum", "table")  # tensors with one row per code
TOLERANCE = 1e-3  # of the root mean square of the codes: how well they have to be met


@dataclass(frozen=True)
class Change:
    """What happens to one table of codes.

    Attributes:
        part: where the table is.
        table: ``(K,)`` int64, the new index of each old code.
        keep: ``(M,)`` int64, the old code that each new one starts from.
        rows: ``(R,)`` int64, new codes that get another vector.
        codes: ``(R, d)`` float32, those vectors.
    """

    part: Part
    table: Tensor
    keep: Tensor
    rows: Tensor
    codes: Tensor


def transplant(seen: Survey, changes: Sequence[Change], tag: str) -> Tokenizer:
    """Return the tokenizer after ``changes``, with its index maps, and a prior if it had one.

    Args:
        seen: what the old tokenizer made of some data; a new prior is fitted to it.
        changes: one for each table of the old tokenizer.
        tag: of the new name, after a hyphen.

    Raises:
        ConfigError: a head's linear map cannot make its new codes.
    """
    old = seen.tokenizer
    sizes = iter([len(change.keep) for change in changes])
    config = {**old.config, "quantizer": _resized(old.config["quantizer"], sizes)}
    new = Tokenizer.from_config(config, name=f"{old.name}-{tag}").eval()
    weights = without_records(old.state_dict())  # the new tables have other sizes
    state = {key: value.cpu() for key, value in weights.items()}
    for change in changes:
        path = change.part.path
        for name in ROWS:
            key = ".".join(["quantizer", path, name] if path else ["quantizer", name])
            if key in state:
                state[key] = state[key][change.keep]
    new.load_state_dict(state)
    for change in changes:
        _write(new.quantizer.get_submodule(change.part.path), change)
    tables = {id(change.part.head): change.table for change in changes}
    step = IndexMap(old.model_id, tuple(tables[id(part.head)] for part in parts(old.quantizer)))
    before = [] if old.index_maps is None else list(old.index_maps.by_model.values())
    new.index_maps = IndexMaps.of([step, *(one.then(step) for one in before)])
    if old.prior is not None:  # its tables are for the old codes
        items = [step.apply(item).numpy() for item in seen.items]
        head = new.quantizer
        new.prior = CountPrior.fit(items, head.codebook_sizes, head.digits, new.model_id)
    return new.to(next(old.parameters()).device)


def _resized(config: Mapping[str, Any], sizes: Iterator[int]) -> dict[str, Any]:
    """Return the config of a quantizer with the sizes of its tables, in order, changed."""
    resized = dict(config)
    nested = {option: _inner(value) for option, value in config.items()}
    for option, inner in nested.items():
        if inner is not None:
            resized[option] = [_resized(one, sizes) for one in inner]
    if "codebook_size" in config:
        resized["codebook_size"] = next(sizes)
    return resized


def _inner(value: Any) -> list[Any] | None:
    """Return the configs of nested parts, as ``registry.build`` understands them."""
    if isinstance(value, Mapping) and set(value) == {"repeat", "of"}:
        return [value["of"]] * int(value["repeat"])
    listed = value if isinstance(value, list) else [value]
    named = [isinstance(one, Mapping) and "name" in one for one in listed]
    return listed if named and all(named) else None


@torch.no_grad()
def _write(head: Any, change: Change) -> None:
    """Give codes their new vectors, and the averages of a table what its codes stand for now.

    Raises:
        ConfigError: the head's linear map makes no such codes.
    """
    rows, codes = change.rows, change.codes
    if isinstance(head, SimVQ):
        head.table[rows] = _before_linear(head, codes) if len(rows) else head.table[rows]
    else:
        if head.affine:
            scale, shift = affine_map(head.latent_moments, head.code_moments)
            codes = (codes - shift) / scale
        head.codebook[rows] = codes.to(head.codebook.dtype)
        _follow(head, change)
    error = (codes_of(head)[rows] - change.codes).square().sum()
    if float(error) > TOLERANCE**2 * float(change.codes.square().sum()):
        raise ConfigError(
            f"doctor: expected a {type(head).__name__} whose linear map reaches any code; got one "
            "of lower rank. Train again with a lower code_dim."
        )


def _before_linear(head: SimVQ, codes: Tensor) -> Tensor:
    """Return the rows ``(R, d)`` of the frozen table that its linear map turns into ``codes``."""
    bias = 0.0 if head.linear.bias is None else head.linear.bias.double()
    weight = head.linear.weight.double()
    target = (codes.double() - bias).T
    solution: Tensor = torch.linalg.lstsq(weight, target, driver="gelsd").solution
    return solution.T.to(head.table)


def _follow(head: VectorQuantizer, change: Change) -> None:
    """Let a merged code count as often as its parts, and a revived one as often as the mean."""
    old = change.part.head
    if not isinstance(old, VectorQuantizer):
        return
    if len(change.keep) < len(change.table):
        count = torch.zeros_like(head.cluster_size)
        head.cluster_size.copy_(count.index_add_(0, change.table, old.cluster_size.cpu()))
    else:
        head.cluster_size[change.rows] = head.cluster_size.mean()
    if head.codebook_update == "ema":
        head.cluster_sum.copy_(head.codebook * head.cluster_size[:, None])
