"""``tvq tokbench``: T-ACC, T-NED and F-Sim of a tokenizer, by scale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tokenizers_vq.data.decode import read_rgb
from tokenizers_vq.data.transforms import image_to_signal, signal_to_image
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.evaluation import results
from tokenizers_vq.tokbench.geometry import through
from tokenizers_vq.tokbench.layout import Face, Word, read_faces, read_words
from tokenizers_vq.tokbench.models import PPOCR, Dlib, Embedder, Reader
from tokenizers_vq.tokbench.scoring import (
    FACE_BUCKETS,
    NAMES,
    TEXT_BUCKETS,
    bucket,
    by_bucket,
    edges_of,
    ned,
)

Change = Callable[[Image.Image], Image.Image]


def reconstruction(tokenizer: Any) -> Change:
    """Return encode and decode of a square picture."""

    def change(canvas: Image.Image) -> Image.Image:
        return signal_to_image(tokenizer.decode(tokenizer.encode(image_to_signal(canvas)[None]))[0])

    return change


def score_text(
    words: Sequence[Word], images: Path, change: Change, side: int, reader: Reader
) -> dict[str, Any]:
    """Return T-ACC and T-NED by bucket of the words that the reader reads on the originals.

    Args:
        words: what is written where.
        images: folder of the pictures.
        change: of the square canvas: a tokenizer, or any damage.
        side: of the canvas.
        reader: who reads.

    Raises:
        ConfigError: TokBench has no buckets for that side.
        DataError: no word falls into a bucket, or a picture is missing.
    """
    edges = edges_of(TEXT_BUCKETS, side)
    inside = [word for word in words if bucket(word.ratio, edges)]
    if not inside:
        raise DataError(
            f"tokbench: expected words with a ratio of {edges[0]} to {edges[-1]}; got none of "
            f"{len(words)}. Choose another side."
        )
    read, labels, ratios = [], [], []
    for picture, found in _pictures(inside, images):
        before = reader.read([_crop(np.asarray(picture), word) for word in found])
        kept = [word for word, text in zip(found, before, strict=True) if text == word.label]
        if not kept:
            continue
        after = through(picture, side, change)
        read += reader.read([_crop(after, word) for word in kept])
        labels += [word.label for word in kept]
        ratios += [word.ratio for word in kept]
    exact = [float(a == b) for a, b in zip(labels, read, strict=True)]
    near = [ned(a, b) for a, b in zip(labels, read, strict=True)]
    return {
        f"T-ACC-{reader.name}": by_bucket(exact, ratios, edges, share=True),
        f"T-NED-{reader.name}": by_bucket(near, ratios, edges, share=False),
        "words": {"given": len(words), "in_buckets": len(inside), "legible": len(labels)},
    }


def score_faces(
    faces: Sequence[Face], images: Path, change: Change, side: int, embedder: Embedder
) -> dict[str, Any]:
    """Return F-Sim by bucket: the mean cosine of a face before and after, at the same points.

    Raises:
        ConfigError: TokBench has no buckets for that side.
        DataError: no face falls into a bucket, or a picture is missing.
    """
    edges = edges_of(FACE_BUCKETS, side)
    inside = [face for face in faces if bucket(face.ratio, edges)]
    if not inside:
        raise DataError(
            f"tokbench: expected faces with a ratio of {edges[0]} to {edges[-1]}; got none of "
            f"{len(faces)}. Choose another side."
        )
    values, ratios = [], []
    for picture, found in _pictures(inside, images):
        after = through(picture, side, change)
        for face in found:
            a, b = (
                embedder.embed(pixels, face.points, face.order)
                for pixels in (np.asarray(picture), after)
            )
            values.append(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))
            ratios.append(face.ratio)
    return {f"F-Sim-{embedder.name}": by_bucket(values, ratios, edges, share=False)}


def table(scores: dict[str, dict[str, Any]]) -> str:
    """Return scores of several conditions as a Markdown table, n per bucket in the heading."""
    first = next(iter(scores.values()))
    metrics = [name for name in first if name != "words"]
    head: list[str] = []
    rows: dict[str, list[str]] = {name: [] for name in scores}
    for metric in metrics:
        for name in (*NAMES, "mean"):
            n = f" (n = {first[metric][name]['n']})" if name in NAMES else ""
            head.append(f"{metric} {name}{n}")
            for condition, found in scores.items():
                value = found[metric][name]["value"] if name in NAMES else found[metric]["mean"]
                rows[condition].append("" if value is None else f"{value:.3f}")
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``tvq tokbench``."""
    parser.add_argument("tokenizer", help="name, folder or hf:org/repo")
    parser.add_argument("--words", type=Path, help="TokBench's text annotation")
    parser.add_argument("--faces", type=Path, help="TokBench's face annotation")
    parser.add_argument("--images", type=Path, help="folder of the pictures; default: beside it")
    parser.add_argument("--side", type=int, default=256, help="of the canvas: 256, 512 or 1024")
    parser.add_argument("-o", "--out", type=Path, default=None, help="folder of the result")


def main_from_args(arguments: argparse.Namespace) -> int:
    """Score as the command line says; print the table.

    Raises:
        ConfigError, CheckpointError, DataError, MissingExtraError: what is missing or wrong.
    """
    from tokenizers_vq.hub import load

    if arguments.words is None and arguments.faces is None:
        raise ConfigError("tokbench: expected --words or --faces; got neither. Give one.")
    tokenizer = load(arguments.tokenizer)
    change, side = reconstruction(tokenizer), arguments.side
    found: dict[str, Any] = {}
    if arguments.words is not None:
        images = arguments.images or arguments.words.parent
        found |= score_text(read_words(arguments.words), images, change, side, PPOCR())
    if arguments.faces is not None:
        images = arguments.images or arguments.faces.parent
        found |= score_faces(read_faces(arguments.faces), images, change, side, Dlib())
    out = arguments.out or Path("outputs/tokbench") / tokenizer.name
    report = {
        "schema": 1, "kind": "tokbench", "name": tokenizer.name, "sha256": tokenizer.sha256,
        "side": side, "scores": found, "environment": results.environment("cpu"),
    }  # fmt: skip
    results.write_json(out / "tokbench.json", report)
    sys.stdout.write(table({tokenizer.name: found}) + f"\n\n{out / 'tokbench.json'}\n")
    return 0


def _pictures(items: Sequence[Any], images: Path) -> Iterator[tuple[Image.Image, list[Any]]]:
    """Yield every picture once, with what is annotated in it."""
    ordered = sorted(items, key=lambda one: one.file)
    for file, found in groupby(ordered, key=lambda one: one.file):
        path = images / file
        if not path.is_file():
            raise DataError(
                f"tokbench: expected the picture '{path}'; got none. "
                "Check the folder of the images."
            )
        yield read_rgb(path), list(found)


def _crop(pixels: np.ndarray, word: Word) -> np.ndarray:
    left, top, right, bottom = word.box
    height, width = pixels.shape[:2]
    left, top = max(0, min(left, width - 1)), max(0, min(top, height - 1))
    return pixels[top : max(top + 1, bottom), left : max(left + 1, right)]
