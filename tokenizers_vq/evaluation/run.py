"""What runs on pictures and on sound share: units of items, measured apart, added up in order.

A unit is what is measured, stored and handed to a process as a whole: a batch of pictures, a clip.
Its ``state`` holds everything it adds to the result, so a run is the sum of its units however they
were measured: in one go, after a crash, by several processes (``progress``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from tokenizers_vq.errors import BitstreamError, DataError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.condition import Condition
from tokenizers_vq.metrics.base import State
from tokenizers_vq.types import Codes


class DataLike(Protocol):
    """What evaluation needs of a data set; ``SignalDataset`` is one."""

    ids: list[str]

    def __getitem__(self, index: int) -> Tensor:
        """Return a picture ``(3, H, W)`` or a sound ``(C, T)`` in [-1, 1]."""

    def sha256(self) -> str:
        """Hex digest of the data."""


class Run:
    """The state of one evaluation.

    Args:
        tokenizer: what is measured.
        dataset: the items, with ``ids`` and ``sha256()``.
        protocol: how; it has a ``name``, a ``hash``, a ``limit``, a ``seed`` and ``prepare``.
        device: where the tokenizer runs.
        weights: local weights files by key, for the metrics that need them.
        keep: how many items are kept to be looked at or listened to.

    Attributes:
        item: what one of the data is called.
        chosen: numbers of the items that are measured.
        rows: plain numbers, item by item.
        kept: of the first ``keep`` items, what is shown of them, by name.
        conditions: every way in which the items are coded.
        seconds: of wall time in ``measure``.

    Raises:
        DataError: there is no item.
    """

    item = "item"

    def __init__(
        self,
        tokenizer: Any,
        dataset: DataLike,
        protocol: Any,
        device: str = "cpu",
        weights: Mapping[str, str] | None = None,
        keep: int = 0,
    ) -> None:
        self.tokenizer, self.dataset, self.protocol = tokenizer, dataset, protocol
        self.device, self.weights, self.keep = device, dict(weights or {}), keep
        self.chosen = self._choose()
        self.rows: list[dict[str, Any]] = []
        self.kept: dict[str, dict[str, Tensor]] = {}
        self.conditions: dict[Any, Condition] = {}
        self.seconds = 0.0
        self.warm = False
        # now, not at the end: the clone may be at another commit by then
        self.environment = results.environment(device)

    def measure(self, unit: Sequence[int], items: Sequence[Tensor]) -> None:
        """Code a unit in every way and add it to every metric.

        Args:
            unit: numbers of its items.
            items: what ``prepare`` returned for them.
        """
        raise NotImplementedError(f"{type(self).__name__}.measure")

    def identity(self) -> dict[str, Any]:
        """Return what was measured."""
        quantizer = getattr(self.tokenizer, "quantizer", None)
        parameters = getattr(self.tokenizer, "parameters", None)
        return {
            "name": self.tokenizer.name,
            "sha256": self.tokenizer.sha256,
            "codebook_sizes": list(getattr(quantizer, "codebook_sizes", ())),
            "parameters": sum(p.numel() for p in parameters()) if parameters else None,
            "entropy_coded": self.tokenizer.prior is not None,
        }

    def data_facts(self) -> dict[str, Any]:
        """Return what is said about the data beside name, hash and number of items."""
        return {}

    def numbers(self) -> dict[str, Any]:
        """Return what was measured as plain data: ``metrics`` and whatever else there is."""
        raise NotImplementedError(f"{type(self).__name__}.numbers")

    def missing(self, result: Mapping[str, Any]) -> list[str]:
        """Return what a result lacks, each with its reason."""
        return [f"{k}: {v['reason']}" for k, v in result["metrics"].items() if v["reason"]]

    def write(self, folder: Path, result: Mapping[str, Any]) -> None:
        """Write tables and what was kept into a folder."""
        raise NotImplementedError(f"{type(self).__name__}.write")

    def units(self) -> list[list[int]]:
        """Return the chosen items as units: as many as the protocol's batch has, or one."""
        size = getattr(self.protocol, "batch_size", 1)
        return [self.chosen[start : start + size] for start in range(0, len(self.chosen), size)]

    def prepare(self, index: int) -> Tensor:
        """Return an item as it is measured."""
        prepared: Tensor = self.protocol.prepare(self.dataset[index])
        return prepared

    def is_kept(self, index: int) -> bool:
        """Say whether an item is among the first ``keep``."""
        return index in self.chosen[: self.keep]

    def result(self, data_name: str) -> dict[str, Any]:
        """Return everything as plain data."""
        protocol = self.protocol
        ids = [self.dataset.ids[index] for index in self.chosen]
        return {
            "schema": results.SCHEMA,
            "protocol": {
                "name": protocol.name,
                "hash": protocol.hash,
                "config": dataclasses.asdict(protocol),
            },
            "tokenizer": self.identity(),
            "data": {
                "name": data_name,
                "sha256": self.dataset.sha256(),
                "n": len(ids),
                "ids_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
                **self.data_facts(),
            },
            "seed": protocol.seed,
            "environment": self.environment,
            **self.numbers(),
        }

    def twin(self) -> Self:
        """Return another run of the same kind that has measured nothing."""
        return type(self)(
            self.tokenizer, self.dataset, self.protocol, self.device, self.weights, self.keep
        )

    def reset(self) -> None:
        """Forget every unit."""
        self.rows, self.kept, self.seconds = [], {}, 0.0
        for condition in self.conditions.values():
            condition.reset()

    def state(self) -> State:
        """Return everything that was measured, for ``absorb``."""
        conditions = [condition.state() for condition in self.conditions.values()]
        return {
            "rows": self.rows, "kept": self.kept, "seconds": self.seconds, "conditions": conditions,
        }  # fmt: skip

    def absorb(self, state: State) -> None:
        """Add what another run of the same kind has measured."""
        self.rows += state["rows"]
        self.kept |= state["kept"]
        self.seconds += state["seconds"]
        for mine, its in zip(self.conditions.values(), state["conditions"], strict=True):
            mine.absorb(its)

    def timed(self, verb: Any, argument: Any, **options: Any) -> tuple[Any, float]:
        """Return what a verb of the tokenizer returns, and its seconds of wall time."""
        self._wait()
        start = time.perf_counter()
        value = verb(argument, **options)
        self._wait()
        return value, time.perf_counter() - start

    def _wait(self) -> None:
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)

    def _choose(self) -> list[int]:
        total, limit = len(self.dataset.ids), self.protocol.limit
        if not total:
            raise DataError(
                f"evaluate: expected at least one {self.item}; got none. Check the folder."
            )
        if limit is None or limit >= total:
            return list(range(total))
        generator = torch.Generator().manual_seed(self.protocol.seed)
        return sorted(torch.randperm(total, generator=generator)[:limit].tolist())


def file_of(codes: Codes, prior: Any) -> bytes:
    """Return the ``.tok`` file of one item, after reading it back.

    Raises:
        BitstreamError: it did not give back the indices it was made from.
    """
    from tokenizers_vq.bitstream import from_bytes, to_bytes

    data = to_bytes(codes, prior)
    if not torch.equal(from_bytes(data, prior).indices, codes.indices):
        raise BitstreamError(
            "evaluate: expected the indices a .tok file was made from; got others. "
            "Report this with the item: its size cannot be trusted."
        )
    return data
