"""Index maps: what the indices of an older tokenizer have become in one that was made from it.

Pruning, reviving or clustering a codebook makes a new tokenizer. Its folder keeps one table per
codebook for each ancestor, so tokens that are stored already stay valid. The file is safetensors
with int64 tensors ``{ancestor}.{codebook}``; its metadata holds, under the one key ``maps``, the
ancestors' names and codebook sizes as JSON.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from tokenizers_vq.errors import CheckpointError, ConfigError, check_indices

FORMAT = "tokenizers_vq.index_map.1"


@dataclass(frozen=True)
class IndexMap:
    """A table per codebook: old index to new index.

    Attributes:
        model: ``name@hash`` of the tokenizer that made the old indices.
        tables: of each of the K codebooks, ``(old size,)`` int64 with the new index.
    """

    model: str
    tables: tuple[Tensor, ...]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The K codebook sizes of the old tokenizer."""
        return tuple(len(table) for table in self.tables)

    def apply(self, indices: Tensor) -> Tensor:
        """Return the new indices of old ``indices (..., K)`` int64; -1 stays -1.

        Raises:
            ShapeError: an index is outside its old codebook, or the shape or dtype is another.
        """
        check_indices(indices, self.codebook_sizes, "index map")
        columns = [
            torch.where(column >= 0, table.to(column.device)[column.clamp(min=0)], -1)
            for table, column in zip(self.tables, indices.unbind(-1), strict=True)
        ]
        return torch.stack(columns, dim=-1)

    def then(self, later: "IndexMap") -> "IndexMap":
        """Return the map from this one's old indices to the new ones of ``later``.

        Raises:
            ConfigError: the two differ in the number of codebooks.
        """
        if len(self.tables) != len(later.tables):
            raise ConfigError(
                f"index map: expected maps of {len(self.tables)} codebooks; "
                f"got {len(later.tables)}. Compose maps of one family of tokenizers."
            )
        pairs = zip(self.tables, later.tables, strict=True)
        return IndexMap(self.model, tuple(after[before] for before, after in pairs))


class IndexMaps:
    """The maps of all ancestors of a tokenizer, parsed from their file when one is first needed.

    Args:
        data: the content of the file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    @classmethod
    def of(cls, maps: Sequence[IndexMap]) -> Self:
        """Return the collection of ``maps``."""
        about = [{"model": one.model, "codebook_sizes": one.codebook_sizes} for one in maps]
        tensors = {
            f"{i}.{k}": table.cpu().clone()  # a file holds no tensor twice
            for i, one in enumerate(maps)
            for k, table in enumerate(one.tables)
        }
        text = json.dumps({"format": FORMAT, "ancestors": about}, sort_keys=True)
        return cls(save_tensors(tensors, {"maps": text}))

    @cached_property
    def by_model(self) -> dict[str, IndexMap]:
        """The maps by ``name@hash`` of the ancestor.

        Raises:
            CheckpointError: the data is no file of index maps.
        """
        try:
            tensors = load_tensors(self.data)
            found = [
                IndexMap(
                    str(one["model"]),
                    tuple(_table(tensors, i, k, n) for k, n in enumerate(one["codebook_sizes"])),
                )
                for i, one in enumerate(_about(self.data)["ancestors"])
            ]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"index map: expected a {FORMAT} file; got one with {type(error).__name__}: "
                f"{str(error).splitlines()[0]}. Make the tokenizer again."
            ) from error
        return {one.model: one for one in found}


def _about(data: bytes) -> dict[str, list[dict[str, Any]]]:
    """Return the metadata: a safetensors file begins with the length of its JSON header."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = json.loads(header["__metadata__"]["maps"])
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']!r}")
    return dict(about)


def _table(tensors: dict[str, Tensor], ancestor: int, codebook: int, size: int) -> Tensor:
    table = tensors[f"{ancestor}.{codebook}"]
    if table.dtype != torch.int64 or tuple(table.shape) != (size,):
        raise ValueError(f"a table of {table.dtype} {tuple(table.shape)} for {size} codes")
    return table
