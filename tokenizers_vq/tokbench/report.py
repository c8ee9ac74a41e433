"""The result of a run: one JSON with protocol, data, scores, models, seed, commit and versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers_vq.data.files import digest_of_files
from tokenizers_vq.evaluation import results
from tokenizers_vq.files import write_atomically
from tokenizers_vq.metrics.base import Score, skipped
from tokenizers_vq.tokbench.scoring import NAMES, SEED

CODE = 1  # counts the changes of this room that change numbers
COUNTS = ("words", "videos")  # what stands beside the scores of a coder
GEOMETRY = {
    False: "long side to the canvas by Lanczos, short side rounded up, centred on a black square",
    True: "short side to the canvas, bilinear; long side padded with black to a multiple of 32",
}


def part(
    items: Sequence[Any],
    annotation: Path,
    root: Path,
    side: int,
    edges: Sequence[float],
    model: Any,
    coders: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what was measured on one annotation file.

    Args:
        items: its words or faces, as many as were used.
        annotation: the file.
        root: folder of the pictures or videos.
        side: of the canvas.
        edges: of the buckets.
        model: the reader or embedder.
        coders: what ``score_text`` or ``score_faces`` returned, by tokenizer or damage.
    """
    videos = items[0].frame is not None
    what = "words" if hasattr(items[0], "label") else "faces"
    config = {
        "code": CODE,
        "of": what,
        "in": "frames of videos" if videos else "pictures",
        "side": side,
        "buckets": dict(zip(NAMES, pairwise(edges), strict=True)),
        "geometry": GEOMETRY[videos],
        "model": {"name": model.name, "sha256": getattr(model, "sha256", None)},
    }
    plain = json.dumps(config, sort_keys=True)
    files = sorted({one.file for one in items})
    content = f"{annotation.read_text(encoding='utf-8')}\0{digest_of_files(root, files)}"
    return {
        "protocol": {
            "name": f"tokbench_{what}{'_video' if videos else ''}_{side}",
            "hash": _sha256(plain)[:12],
            "config": json.loads(plain),
        },
        "data": {
            "name": annotation.resolve().parent.name,
            "sha256": _sha256(content),
            "n": len(files),
            "ids_sha256": _sha256("\n".join(files)),
            "unit": "clips" if videos else "pictures",
        },
        "packages": {name: _version(name) for name in getattr(model, "packages", ())},
        # the same for all: words are read on the originals
        "counts": _counts(next(iter(coders.values()))),
        "coders": {name: _scores(found, what) for name, found in coders.items()},
    }


def report(
    parts: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
    command: str,
    tokenizer: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the result of a run as plain data; what the page of results shows it reads from it.

    Args:
        parts: one per annotation file.
        environment: as it was when the run began.
        command: what was typed, without folders.
        tokenizer: name, sha256, and how many frames at once; None for damage alone.
    """
    return {
        "schema": results.SCHEMA, "kind": "tokbench", "tokenizer": tokenizer, "parts": list(parts),
        "seed": SEED, "environment": dict(environment), "command": command,
    }  # fmt: skip


def write_report(folder: Path, found: Mapping[str, Any], after: str = "") -> Path:
    """Write ``tokbench.json`` and its tables, ``tokbench.md``; return the JSON's path."""
    pages = [f"{table(one)}\n\n{footnote(found, one)}" for one in found["parts"]]
    text = "\n\n".join([*pages, *filter(None, (after, f"`{found['command']}`"))])
    write_atomically(folder / "tokbench.md", text + "\n")
    results.write_json(folder / "tokbench.json", found)
    return folder / "tokbench.json"


def table(found: Mapping[str, Any]) -> str:
    """Return the coders of a part as a Markdown table, n per bucket in the heading."""
    first = next(iter(found["coders"].values()))
    shown = [name for name, score in first.items() if score["value"] is not None]
    heads = [f"{k} (n = {first[k]['n']})" if not k.endswith(" mean") else k for k in shown]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for name, scores in found["coders"].items():
        cells = " | ".join(f"{scores[k]['value']:.3f}" for k in shown)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def footnote(found: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    """Return the line without which the numbers of a part mean nothing."""
    counts = one["counts"]
    text = results.footnote({**found, **one})
    if "words" in counts:
        text += " Of {given} words, {in_buckets} in buckets, {legible} legible.".format(
            **counts["words"]
        )
    if "videos" in counts:
        text += " {frames} frames.".format(**counts["videos"])
    return text


def _counts(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in COUNTS if name in found}


def _scores(found: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return buckets and means as scores by ``METRIC BUCKET``, as other results have them."""
    scores: dict[str, Score] = {}
    for metric, buckets in found.items():
        if metric in COUNTS:
            continue
        for name in NAMES:
            one = buckets[name]
            scores[f"{metric} {name}"] = (
                Score(one["value"], one["n"], one["interval"], higher_is_better=True)
                if one["n"]
                else skipped(f"none of the {what} is {name}")
            )
        total = sum(buckets[name]["n"] for name in NAMES)
        mean = Score(buckets["mean"], total, higher_is_better=True)
        empty = skipped("a bucket is empty")
        scores[f"{metric} mean"] = empty if buckets["mean"] is None else mean
    return {name: asdict(score) for name, score in scores.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
