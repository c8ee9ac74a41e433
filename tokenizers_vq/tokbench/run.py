"""``tvq tokbench``: T-ACC, T-NED and F-Sim of a tokenizer, by scale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tokenizers_vq.data.transforms import image_to_signal, signal_to_image
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.evaluation import results
from tokenizers_vq.tokbench.layout import Face, Word, first_files, read_faces, read_words
from tokenizers_vq.tokbench.models import PPOCR, Dlib, Embedder, Reader
from tokenizers_vq.tokbench.report import footnote, part, report, table, write_report
from tokenizers_vq.tokbench.scoring import (
    FACE_BUCKETS,
    TEXT_BUCKETS,
    VIDEO_FACE_BUCKETS,
    VIDEO_TEXT_BUCKETS,
    bucket,
    by_bucket,
    edges_of,
    ned,
)
from tokenizers_vq.tokbench.views import Change, Clips, views

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
    edges = text_edges(words, side)
    inside = _inside(words, "words", edges)
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
    sure = inside[0].frame is None
    return {
        f"T-ACC-{reader.name}": by_bucket(exact, ratios, edges, share=True, intervals=sure),
        f"T-NED-{reader.name}": by_bucket(near, ratios, edges, share=False, intervals=sure),
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
    edges = face_edges(faces, side)
    inside = _inside(faces, "faces", edges)
    values, ratios = [], []
    for view in views(inside, root, change, side):
        after = view.after()
        for face in view.found:
            a, b = (
                embedder.embed(pixels, face.points, face.order) for pixels in (view.before, after)
            )
            values.append(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))
            ratios.append(face.ratio)
    sure = inside[0].frame is None
    return {
        f"F-Sim-{embedder.name}": by_bucket(values, ratios, edges, share=False, intervals=sure),
        **_places(inside),
    }


def text_edges(words: Sequence[Word], side: int) -> tuple[float, ...]:
    """Return the edges of the buckets of words, in pictures or in videos."""
    return edges_of(VIDEO_TEXT_BUCKETS if _of_videos(words) else TEXT_BUCKETS, side)


def face_edges(faces: Sequence[Face], side: int) -> tuple[float, ...]:
    """Return the edges of the buckets of faces, in pictures or in videos."""
    return edges_of(VIDEO_FACE_BUCKETS if _of_videos(faces) else FACE_BUCKETS, side)


def _of_videos(items: Sequence[Any]) -> bool:
    return bool(items) and items[0].frame is not None


def _inside(items: Sequence[Any], what: str, edges: Sequence[float]) -> list[Any]:
    """Return what falls into a bucket."""
    inside = [one for one in items if bucket(one.ratio, edges)]
    if not inside:
        raise DataError(
            f"tokbench: expected {what} with a ratio of {edges[0]} to {edges[-1]}; got none of "
            f"{len(items)}. Choose another side."
        )
    return inside


def _places(items: Sequence[Any]) -> dict[str, Any]:
    """Return in how many files and frames of videos items lie; nothing for pictures."""
    frames = {(one.file, one.frame) for one in items if one.frame is not None}
    if not frames:
        return {}
    return {"videos": {"files": len({file for file, _ in frames}), "frames": len(frames)}}


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
    parser.add_argument(
        "--limit", type=int, default=None, help="pictures or videos of each file, first by name"
    )
    parser.add_argument("-o", "--out", type=Path, default=None, help="folder of the result")


def main_from_args(arguments: argparse.Namespace) -> int:
    """Score as the command line says, write the result, print its tables.

    Raises:
        ConfigError, CheckpointError, DataError, MissingExtraError: what is missing or wrong.
    """
    from tokenizers_vq.hub import load

    environment = results.environment("cpu")
    if arguments.words is None and arguments.faces is None:
        raise ConfigError("tokbench: expected --words or --faces; got neither. Give one.")
    tokenizer = load(arguments.tokenizer)
    change = reconstruction(tokenizer, arguments.frames)
    identity: dict[str, Any] = {"name": tokenizer.name, "sha256": tokenizer.sha256}
    if isinstance(change, Clips):
        identity["frames_at_once"] = change.window
    parts = measured(arguments, {tokenizer.name: change})
    out = arguments.out or Path("outputs/tokbench") / tokenizer.name
    typed = f"tvq tokbench {tokenizer.name} {options_of(arguments)}"
    found = report(parts, environment, typed, identity)
    path = write_report(out, found)
    tables = [f"{table(one)}\n\n{footnote(found, one)}\n\n" for one in parts]
    sys.stdout.write("".join(tables) + f"{path}\n")
    return 0


def measured(
    arguments: argparse.Namespace,
    changes: Mapping[str, Change | Clips],
    reader: Callable[[], Reader] | None = None,
    embedder: Callable[[], Embedder] | None = None,
) -> list[dict[str, Any]]:
    """Return a part of the result for each annotation file that the command line names.

    Args:
        arguments: ``words``, ``faces``, ``images``, ``side``, ``limit``.
        changes: what is measured, by name.
        reader: makes the reader; default: ``PPOCR``.
        embedder: makes the embedder; default: ``Dlib``.
    """
    given = (
        (arguments.words, read_words, score_text, reader or PPOCR, text_edges),
        (arguments.faces, read_faces, score_faces, embedder or Dlib, face_edges),
    )
    parts = []
    for path, read, score, made, edges in given:
        if path is None:
            continue
        items: Any = first_files(read(path), arguments.limit)
        model: Any = made()
        root, side = arguments.images or path.parent, arguments.side
        coders = {name: score(items, root, change, side, model) for name, change in changes.items()}
        parts.append(part(items, path, root, side, edges(items, side), model, coders))
    return parts


def options_of(arguments: argparse.Namespace) -> str:
    """Return the options that change numbers, with file names instead of paths."""
    named = {
        "--words": arguments.words and arguments.words.name,
        "--faces": arguments.faces and arguments.faces.name,
        "--side": arguments.side,
        "--limit": arguments.limit,
        "--frames": getattr(arguments, "frames", WINDOW),
    }
    if named["--frames"] == WINDOW:
        del named["--frames"]
    return " ".join(f"{key} {value}" for key, value in named.items() if value is not None)


def _crop(pixels: np.ndarray, word: Word) -> np.ndarray:
    left, top, right, bottom = word.box
    height, width = pixels.shape[:2]
    left, top = max(0, min(left, width - 1)), max(0, min(top, height - 1))
    return pixels[top : max(top + 1, bottom), left : max(left + 1, right)]
