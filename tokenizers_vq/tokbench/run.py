"""``tvq tokbench``: T-ACC, T-NED and F-Sim of a tokenizer, by scale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tokenizers_vq.data.transforms import image_to_signal, signal_to_image
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.evaluation import results
from tokenizers_vq.tokbench.layout import Face, Word, read_faces, read_words
from tokenizers_vq.tokbench.models import PPOCR, Dlib, Embedder, Reader
from tokenizers_vq.tokbench.scoring import (
    FACE_BUCKETS,
    NAMES,
    TEXT_BUCKETS,
    VIDEO_FACE_BUCKETS,
    VIDEO_TEXT_BUCKETS,
    bucket,
    by_bucket,
    edges_of,
    ned,
)
from tokenizers_vq.tokbench.views import Change, Clips, views

Edges = Mapping[int, tuple[float, ...]]
COUNTS = ("words", "videos")  # what stands beside the scores
WINDOW = 17  # frames that a tokenizer of videos is given at once


def reconstruction(tokenizer: Any, window: int = WINDOW) -> Change | Clips:
    """Return encode and decode of a canvas, or of up to ``window`` of them for one of videos.

    Raises:
        ConfigError: the tokenizer is neither of pictures nor of videos, or the window is below 1.
    """
    kind = tokenizer.signal.kind
    if kind not in ("image", "video"):
        raise ConfigError(
            f"tokbench: expected a tokenizer of pictures or videos; got one of {kind}. "
            "Choose another."
        )
    if window < 1:
        raise ConfigError(f"tokbench: expected --frames of 1 or more; got {window}.")

    def change(canvas: Image.Image) -> Image.Image:
        return signal_to_image(tokenizer.decode(tokenizer.encode(image_to_signal(canvas)[None]))[0])

    def together(canvases: list[Image.Image]) -> list[Image.Image]:
        clip = torch.stack([image_to_signal(canvas) for canvas in canvases], dim=1)
        back = tokenizer.decode(tokenizer.encode(clip[None]))[0]
        return [signal_to_image(frame) for frame in back.unbind(1)]

    return change if kind == "image" else Clips(together, window)


def score_text(
    words: Sequence[Word], root: Path, change: Change | Clips, side: int, reader: Reader
) -> dict[str, Any]:
    """Return T-ACC and T-NED by bucket of the words that the reader reads on the originals.

    Args:
        words: what is written where, in pictures or in frames of videos.
        root: folder of the pictures or videos.
        change: of the canvas, or of those of consecutive frames: a tokenizer, or any damage.
        side: of the canvas; of its short side for videos.
        reader: who reads.

    Raises:
        ConfigError: TokBench has no buckets for that side.
        DataError: no word falls into a bucket, or a file is missing or unreadable.
    """
    inside, edges = _inside(words, "words", side, TEXT_BUCKETS, VIDEO_TEXT_BUCKETS)
    read, kept = [], []
    for view in views(inside, root, change, side):
        before = reader.read([_crop(view.before, word) for word in view.found])
        legible = [w for w, text in zip(view.found, before, strict=True) if text == w.label]
        if legible:
            after = view.after()
            read += reader.read([_crop(after, word) for word in legible])
            kept += legible
    ratios = [word.ratio for word in kept]
    exact = [float(word.label == text) for word, text in zip(kept, read, strict=True)]
    near = [ned(word.label, text) for word, text in zip(kept, read, strict=True)]
    # a word in neighbouring frames is one word seen again: no interval for videos
    share = inside[0].frame is None
    return {
        f"T-ACC-{reader.name}": by_bucket(exact, ratios, edges, share=share),
        f"T-NED-{reader.name}": by_bucket(near, ratios, edges, share=False),
        "words": {"given": len(words), "in_buckets": len(inside), "legible": len(kept)},
        **_places(kept),
    }


def score_faces(
    faces: Sequence[Face], root: Path, change: Change | Clips, side: int, embedder: Embedder
) -> dict[str, Any]:
    """Return F-Sim by bucket: the mean cosine of a face before and after, at the same points.

    Args:
        faces: where they are, in pictures or in frames of videos.
        root: folder of the pictures or videos.
        change: of the canvas, or of those of consecutive frames.
        side: of the canvas; of its short side for videos.
        embedder: who compares.

    Raises:
        ConfigError: TokBench has no buckets for that side.
        DataError: no face falls into a bucket, or a file is missing or unreadable.
    """
    inside, edges = _inside(faces, "faces", side, FACE_BUCKETS, VIDEO_FACE_BUCKETS)
    values, ratios = [], []
    for view in views(inside, root, change, side):
        after = view.after()
        for face in view.found:
            a, b = (
                embedder.embed(pixels, face.points, face.order) for pixels in (view.before, after)
            )
            values.append(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))
            ratios.append(face.ratio)
    return {
        f"F-Sim-{embedder.name}": by_bucket(values, ratios, edges, share=False),
        **_places(inside),
    }


def _inside(
    items: Sequence[Any], what: str, side: int, pictures: Edges, videos: Edges
) -> tuple[list[Any], tuple[float, ...]]:
    """Return what falls into a bucket, and the edges of the buckets."""
    of_videos = bool(items) and items[0].frame is not None
    edges = edges_of(videos if of_videos else pictures, side)
    inside = [one for one in items if bucket(one.ratio, edges)]
    if not inside:
        raise DataError(
            f"tokbench: expected {what} with a ratio of {edges[0]} to {edges[-1]}; got none of "
            f"{len(items)}. Choose another side."
        )
    return inside, edges


def _places(items: Sequence[Any]) -> dict[str, Any]:
    """Return in how many files and frames of videos items lie; nothing for pictures."""
    frames = {(one.file, one.frame) for one in items if one.frame is not None}
    if not frames:
        return {}
    return {"videos": {"files": len({file for file, _ in frames}), "frames": len(frames)}}


def table(scores: dict[str, dict[str, Any]]) -> str:
    """Return scores of several conditions as a Markdown table, n per bucket in the heading."""
    first = next(iter(scores.values()))
    metrics = [name for name in first if name not in COUNTS]
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
    parser.add_argument(
        "--images", type=Path, help="folder of the pictures or videos; default: beside it"
    )
    parser.add_argument(
        "--side", type=int, default=256, help="of the canvas: 256, 512 or 1024; videos: 256, 480"
    )
    parser.add_argument(
        "--frames", type=int, default=WINDOW, help="that a tokenizer of videos is given at once"
    )
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
    change, side = reconstruction(tokenizer, arguments.frames), arguments.side
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


def _crop(pixels: np.ndarray, word: Word) -> np.ndarray:
    left, top, right, bottom = word.box
    height, width = pixels.shape[:2]
    left, top = max(0, min(left, width - 1)), max(0, min(top, height - 1))
    return pixels[top : max(top + 1, bottom), left : max(left + 1, right)]
