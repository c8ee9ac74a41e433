"""Carry a run out: go on where a killed one stopped, share the units among processes, write.

Every unit that was measured is a file in the folder ``state`` of the results until they are
complete. Its name is the hash of all it depends on: the tokenizer, the protocol, the pixels or
samples of its items, the sources of this library, the versions of others, which metrics could be
computed. So a file is right or is not found, and a crash loses the unit that was being measured.

Under ``torchrun`` every process measures a contiguous part of the units, and the first one adds
the parts up in the order of the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from tokenizers_vq.errors import DataError, MissingExtraError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.run import Run
from tokenizers_vq.files import write_atomically
from tokenizers_vq.metrics.base import State

DIGEST = 64  # hex digits in front of a stored unit


def carry_out(
    run: Run,
    out: str | Path | None,
    data_name: str = "",
    *,
    strict: bool = False,
    state: Path | None = None,
) -> dict[str, Any]:
    """Measure everything a run has not measured before; write and return the result.

    Args:
        run: that has measured nothing.
        out: folder of the results; nothing is stored without it.
        data_name: printed with the numbers; default: the class of the data set.
        strict: raise when something could not be measured.
        state: folder of the units that were measured, left in place; default: one in ``out`` that
            is emptied when the result is complete.

    Returns:
        The result as plain data, the same in every process.

    Raises:
        MissingExtraError: ``strict`` and something was skipped.
    """
    folder = None if out is None else Path(out)
    shelf = None
    if folder is not None:
        shelf = Shelf(state or folder / "state", run_key(run))
    measure_units(run, shelf)
    result: dict[str, Any] = {}
    if _gather(run):
        result = _result(run, data_name)
        if folder is not None:
            results.write_rows(folder / "samples.jsonl", run.rows)
            run.write(folder, result)
            results.write_json(folder / "result.json", result)  # last: it says the rest is there
            if state is None:
                clear(folder / "state")
    result = _shared(result)
    missing = run.missing(result)
    if strict and missing:
        raise MissingExtraError(
            f"evaluate: expected every metric with strict; got {len(missing)} skipped "
            f"({'; '.join(missing)}). Give the weights, or leave strict out."
        )
    return result


def measure_units(run: Run, shelf: Shelf | None = None) -> None:
    """Add this process's part of the units to a run, from the shelf or by measuring them."""
    from tqdm import tqdm

    rank, ranks = place()
    units, part = run.units(), run.twin()
    mine = units[len(units) * rank // ranks : len(units) * (rank + 1) // ranks]
    total = sum(map(len, mine))
    with tqdm(total=total, unit=run.item, leave=False, disable=True if rank else None) as bar:
        for unit in mine:
            items = [run.prepare(index) for index in unit]
            name = unit_key(run, unit, items) if shelf is not None else ""
            state = shelf.get(name) if shelf is not None else None
            if state is None:
                state = _measured(part, unit, items)
                if shelf is not None:
                    shelf.put(name, state)
            run.absorb(state)
            bar.update(len(unit))


class Shelf:
    """A folder of measured units, each a file that was written whole or not at all.

    Args:
        folder: it is made when the first unit is stored.
        key: hash of what all the units depend on.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def get(self, name: str) -> State | None:
        """Return a stored unit; None if there is none, or if its file was damaged."""
        path = self._path(name)
        if not path.is_file():
            return None
        data = path.read_bytes()
        if hashlib.sha256(data[DIGEST:]).hexdigest().encode() != data[:DIGEST]:
            return None
        state: State = torch.load(io.BytesIO(data[DIGEST:]), weights_only=True)
        return state

    def put(self, name: str, state: State) -> None:
        """Store a unit."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        write_atomically(self._path(name), hashlib.sha256(data).hexdigest().encode() + data)

    def _path(self, name: str) -> Path:
        return self.folder / f"{_sha256(self.key, name)[:40]}.unit"


def clear(folder: Path) -> None:
    """Remove all units from a folder, and the folder if nothing else is in it."""
    for path in folder.glob("*.unit"):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def run_key(run: Run) -> str:
    """Return the hash of what every unit of a run depends on, whatever its items are."""
    identity = "" if run.tokenizer is None else f"{run.tokenizer.name}@{run.tokenizer.sha256}"
    environment = {**run.environment}
    del environment["commit"]  # the sources say more
    # without an item a score says what it needs, what is missing and which packages it uses
    needs = [
        {name: dataclasses.asdict(score) for name, score in condition.scores().items()}
        for condition in run.twin().conditions.values()
    ]
    facts = {
        "tokenizer": identity,
        "protocol": run.protocol.hash,
        "weights": run.weights,
        "environment": environment,
        "conditions": [repr(key) for key in run.conditions],
        "needs": needs,
    }
    return _sha256(type(run).__name__, sources(), json.dumps(facts, sort_keys=True, default=repr))


def unit_key(run: Run, unit: Sequence[int], items: Sequence[Tensor]) -> str:
    """Return the hash of the items of a unit: their numbers, names, contents, which are kept."""
    digest = hashlib.sha256()
    for index, item in zip(unit, items, strict=True):
        facts = (index, run.dataset.ids[index], run.is_kept(index), str(item.dtype), *item.shape)
        digest.update(json.dumps(facts).encode())
        digest.update(item.contiguous().numpy().tobytes())
    return digest.hexdigest()


@cache
def sources() -> str:
    """Return the hash of every source file of this library."""
    package = Path(__file__).resolve().parents[1]
    files = sorted(package.rglob("*.py"))
    return _sha256(*(f"{path.relative_to(package)}\0{path.read_text()}" for path in files))


def place() -> tuple[int, int]:
    """Return the number of this process and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@contextmanager
def processes() -> Iterator[None]:
    """Join the other processes that ``torchrun`` started, if it did; each has a GPU of its own."""
    wanted = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if wanted:
        dist.init_process_group("gloo")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        yield
    finally:
        if wanted:
            dist.destroy_process_group()


def _measured(part: Run, unit: Sequence[int], items: Sequence[Tensor]) -> State:
    part.reset()
    start = time.perf_counter()
    part.measure(unit, items)
    return {**part.state(), "seconds": time.perf_counter() - start}


def _result(run: Run, data_name: str) -> dict[str, Any]:
    measured = [row["id"] for row in run.rows]
    wanted = [run.dataset.ids[index] for index in run.chosen]
    if measured != wanted:
        raise DataError(
            f"evaluate: expected each of {len(wanted)} items once; got {len(measured)} rows. "
            "Give every process the same data set."
        )
    start = time.perf_counter()
    result = run.result(data_name or type(run.dataset).__name__)
    result["seconds"] = round(run.seconds + time.perf_counter() - start, 3)
    return result


def _gather(run: Run) -> bool:
    """Add the parts of all processes to the first one's run; say whether this is the first."""
    rank, ranks = place()
    if ranks > 1:
        parts: list[Any] | None = [None] * ranks if rank == 0 else None
        dist.gather_object(run.state(), parts, group=_gloo())
        for state in (parts or [])[1:]:
            run.absorb(state)
    return rank == 0


def _shared(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first process's result in all of them."""
    box = [dict(result)]
    if place()[1] > 1:
        dist.broadcast_object_list(box, group=_gloo())
    return box[0]


@cache
def _gloo() -> Any:
    """Return a group that sends plain objects; the default one may speak to GPUs only."""
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
