"""Committed results and receipts, and what others claim, as the data of one page.

Results with another protocol, data set or number of pictures never share a table. Claims are never
in a column with a measured number: they stand in a column of their own, with source and protocol.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import results

CLAIM = ("tokenizer", "metric", "value", "protocol", "source")


@dataclass(frozen=True)
class Board:
    """Everything the page shows.

    Attributes:
        groups: lists of results that may be compared, the largest first.
        receipts: receipts by tokenizer name.
        claims: published numbers, each with the keys of ``CLAIM``.
        protocols: what the protocol of a claim is, in words.
        sources: where a claim stands.
        files: path of each result or receipt, by ``id`` of its data.
    """

    groups: list[list[dict[str, Any]]]
    receipts: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: Sequence[Mapping[str, Any]] = ()
    protocols: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)


def collect(folder: Path, claimed: Path | None = None) -> Board:
    """Read every result and receipt below a folder, and the claims.

    Files of other kinds are left alone.

    Raises:
        ConfigError: a result is of another schema, a claim is incomplete, or there is no result.
    """
    groups: dict[tuple[str, str, str, int], list[dict[str, Any]]] = defaultdict(list)
    receipts, files = {}, {}
    for path in sorted(folder.rglob("*.json")):
        kind = _kind(path)
        if kind is None:
            continue
        data = results.read_result(path)
        files[id(data)] = path.relative_to(folder).as_posix()
        if kind == "receipt":
            receipts[data["tokenizer"]["name"]] = data
            continue
        for one in results.coders(data):
            group = groups[_key(one)]
            # the same codec on the same clips comes with every tokenizer that was measured
            if one["tokenizer"]["sha256"] or one["tokenizer"]["name"] not in _names(group):
                group.append(one)
                files[id(one)] = files[id(data)]
    if not groups:
        raise ConfigError(
            f"leaderboard: expected result files in '{folder}'; got none. "
            "Run tvq eval NAME -o eval/results/NAME/PROTOCOL."
        )
    ordered = sorted(groups.values(), key=lambda group: (-group[0]["data"]["n"], -len(group)))
    for group in ordered:
        results.check_comparable(group)
    claims = read_claims(claimed) if claimed else {"claims": [], "protocols": {}, "sources": {}}
    return Board(ordered, receipts, claims["claims"], claims["protocols"], claims["sources"], files)


def read_claims(path: Path) -> dict[str, Any]:
    """Return the claims of a file, every one with its source and protocol.

    Raises:
        ConfigError: it is no JSON, or a claim lacks a key or names an unknown source or protocol.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"claims: expected JSON in '{path}'; got {error}. Correct it.") from error
    for number, claim in enumerate(data["claims"]):
        missing = [key for key in CLAIM if key not in claim]
        if missing:
            raise ConfigError(
                f"claims: expected {', '.join(CLAIM)} in claim {number} of '{path}'; "
                f"{', '.join(missing)} missing. Add it, or leave the claim out."
            )
        for table in ("protocol", "source"):
            known = data[f"{table}s"]
            if claim[table] not in known:
                raise ConfigError(
                    f"claims: expected a {table} of {', '.join(sorted(known))} in claim {number} "
                    f"of '{path}'; got '{claim[table]}'. Describe it there first."
                )
    return data


def columns(group: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that at least one result of a group has, in the order of the results."""
    names: dict[str, None] = {}
    for result in group:
        for name, score in result["metrics"].items():
            if score["value"] is not None:
                names.setdefault(name)
    return list(names)


def receipt_table(receipts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what each tokenizer keeps of the contract as a Markdown table."""
    lines = ["| tokenizer | kept | broken | commit |", "|---|---:|---|---|"]
    for name, one in sorted(receipts.items()):
        due = sum(p["verdict"] != "not claimed" for p in one["properties"].values())
        broken = ", ".join(key.replace("_", " ") for key in one["broken"])
        commit = (one["environment"]["commit"] or "unknown")[:10]
        lines.append(f"| {name} | {one['kept']} of {due} | {broken} | {commit} |")
    return "\n".join(lines)


def command(result: Mapping[str, Any]) -> str:
    """Return what was typed to get a result, as far as it says so."""
    typed = str(result.get("command") or "")
    name, protocol = result["tokenizer"]["name"], result["protocol"]["name"]
    return typed or f"tvq eval {name} --protocol {protocol} --data {result['data']['name']}"


def _kind(path: Path) -> str | None:
    """Return ``result``, ``receipt``, or None for a file of another kind.

    Raises:
        ConfigError: it is no JSON.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"leaderboard: expected JSON in '{path}'; got {error}. Evaluate again."
        ) from error
    if not isinstance(data, dict) or "schema" not in data:
        return None
    if data.get("kind") == "receipt":
        return "receipt"
    if data.get("kind") == "tokbench":
        return "result"
    return "result" if {"protocol", "tokenizer", "data", "metrics"} <= data.keys() else None


def _names(group: Sequence[Mapping[str, Any]]) -> set[str]:
    return {one["tokenizer"]["name"] for one in group}


def _key(result: Mapping[str, Any]) -> tuple[str, str, str, int]:
    protocol, data = result["protocol"], result["data"]
    return (
        f"{protocol['name']}@{protocol['hash']}", data["sha256"], data.get("ids_sha256", ""),
        data["n"],
    )  # fmt: skip
