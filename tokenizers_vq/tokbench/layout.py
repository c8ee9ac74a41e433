"""TokBench's annotation files as they are: words with boxes, faces with five points.

Words of videos come as one entry per frame, ``{video_name, file_name, annotations}`` where
``file_name`` ends in ``-frame<N>``, counted from 1; faces as one entry per video, ``{video_name,
frame_anns}`` with a list of faces for every frame.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers_vq.data.video import SUFFIXES
from tokenizers_vq.errors import DataError

KEYS = {"kps": "eyes_nose_mouth", "kps5": "eye_corners_nose"}  # TokBench's, and dlib's
FRAME = re.compile(r"-frame0*([1-9]\d*)(\.\w+)?$")


@dataclass(frozen=True)
class Word:
    """A word in a picture or in a frame of a video.

    Attributes:
        file: path of the picture or video below its folder.
        label: what it says, case and punctuation included.
        box: upright, in pixels of the original: left, top, right, bottom.
        ratio: longest side of the box / number of characters / longest side of the picture.
        frame: of the video, counted from 0; None in a picture.
    """

    file: str
    label: str
    box: tuple[int, int, int, int]
    ratio: float
    frame: int | None = None


@dataclass(frozen=True)
class Face:
    """A face in a picture or in a frame of a video.

    Attributes:
        file: path of the picture or video below its folder.
        points: five (x, y) in pixels of the original.
        order: what the points are: ``eyes_nose_mouth``, TokBench's, or ``eye_corners_nose``.
        ratio: size of the face / longest side of the picture, as the file gives it.
        frame: of the video, counted from 0; None in a picture.
    """

    file: str
    points: tuple[tuple[float, float], ...]
    order: str
    ratio: float
    frame: int | None = None


def read_words(path: str | Path) -> list[Word]:
    """Return the words of ``[{file_name, annotations: [{rec, bbox, ratio}]}]``.

    With ``video_name`` in the entries they are frames of videos.

    Raises:
        DataError: the file is missing, or is not of that layout.
    """
    entries = _list(Path(path))
    videos = _of_videos(entries)
    found = []
    for picture in entries:
        name = str(_part(picture, "file_name", path))
        file = _video(picture, path) if videos else name
        frame = _frame(name, path) if videos else None
        for one in _part(picture, "annotations", path):
            left, top, right, bottom = (int(v) for v in _part(one, "bbox", path))
            ratio = float(_part(one, "ratio", path))
            box = (left, top, right, bottom)
            found.append(Word(file, _part(one, "rec", path), box, ratio, frame))
    return found


def read_faces(path: str | Path) -> list[Face]:
    """Return the faces of ``[{image_name, faces: [{kps or kps5, ratio}]}]``.

    With ``video_name`` in the entries, of ``[{video_name, frame_anns: [[{kps, ratio}]]}]``.

    Raises:
        DataError: the file is missing, or is not of that layout.
    """
    entries = _list(Path(path))
    found = []
    if _of_videos(entries):
        for video in entries:
            file = _video(video, path)
            for frame, faces in enumerate(_part(video, "frame_anns", path)):
                found += [_face(one, file, frame, path) for one in faces]
        return found
    for picture in entries:
        file = _part(picture, "image_name", path)
        found += [_face(one, file, None, path) for one in _part(picture, "faces", path)]
    return found


def first_files(items: Sequence[Any], limit: int | None) -> list[Any]:
    """Return the words or faces of the first ``limit`` pictures or videos by name; None for all.

    Raises:
        DataError: there is none.
    """
    kept = set(sorted({one.file for one in items})[:limit])
    if not kept:
        raise DataError(
            "tokbench: expected at least one word or face; got none. Check the annotation."
        )
    return [one for one in items if one.file in kept]


def _face(one: dict[str, Any], file: str, frame: int | None, path: str | Path) -> Face:
    key = "kps5" if "kps5" in one else "kps"
    points = tuple((float(p[0]), float(p[1])) for p in _part(one, key, path))
    if len(points) != 5:
        raise DataError(
            f"tokbench: expected five points per face in '{path}'; got {len(points)}. "
            "Give TokBench's face annotation."
        )
    return Face(file, points, KEYS[key], float(_part(one, "ratio", path)), frame)


def _of_videos(entries: Sequence[dict[str, Any]]) -> bool:
    return bool(entries) and "video_name" in entries[0]


def _video(entry: dict[str, Any], path: str | Path) -> str:
    """Return the file of a video: TokBench leaves ``.mp4`` out in its text annotation."""
    name = str(_part(entry, "video_name", path))
    return name if Path(name).suffix.lower() in SUFFIXES else f"{name}.mp4"


def _frame(name: str, path: str | Path) -> int:
    found = FRAME.search(name)
    if not found:
        raise DataError(
            f"tokbench: expected a file_name that ends in -frame<N>, from 1 on, in '{path}'; got "
            f"'{name}'. Give TokBench's video annotation."
        )
    return int(found[1]) - 1


def _list(path: Path) -> Sequence[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"tokbench: expected an annotation file; got '{path}'. Check the path.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"tokbench: expected JSON in '{path}'; got {error}. Correct it.") from error
    if not isinstance(data, list):
        raise DataError(
            f"tokbench: expected a list of pictures in '{path}'; got {type(data).__name__}. "
            "Give TokBench's annotation file."
        )
    return data


def _part(entry: dict[str, Any], key: str, path: str | Path) -> Any:
    if key not in entry:
        raise DataError(
            f"tokbench: expected '{key}' in every entry of '{path}'; got {sorted(entry)}. "
            "Give TokBench's annotation file."
        )
    return entry[key]
