"""TokBench's annotation files as they are: words with boxes, faces with five points."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers_vq.errors import DataError

KEYS = {"kps": "eyes_nose_mouth", "kps5": "eye_corners_nose"}  # TokBench's, and dlib's


@dataclass(frozen=True)
class Word:
    """A word in a picture.

    Attributes:
        file: path of the picture below the image folder.
        label: what it says, case and punctuation included.
        box: upright, in pixels of the original: left, top, right, bottom.
        ratio: longest side of the box / number of characters / longest side of the picture.
    """

    file: str
    label: str
    box: tuple[int, int, int, int]
    ratio: float


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
        file: path of the picture below the image folder.
        points: five (x, y) in pixels of the original.
        order: what the points are: ``eyes_nose_mouth``, TokBench's, or ``eye_corners_nose``.
        ratio: size of the face / longest side of the picture, as the file gives it.
    """

    file: str
    points: tuple[tuple[float, float], ...]
    order: str
    ratio: float


def read_words(path: str | Path) -> list[Word]:
    """Return the words of ``[{file_name, annotations: [{rec, bbox, ratio}]}]``.

    Raises:
        DataError: the file is missing, or is not of that layout.
    """
    found = []
    for picture in _list(Path(path)):
        file = _part(picture, "file_name", path)
        for one in _part(picture, "annotations", path):
            left, top, right, bottom = (int(v) for v in _part(one, "bbox", path))
            ratio = float(_part(one, "ratio", path))
            found.append(Word(file, _part(one, "rec", path), (left, top, right, bottom), ratio))
    return found


def read_faces(path: str | Path) -> list[Face]:
    """Return the faces of ``[{image_name, faces: [{kps or kps5, ratio}]}]``.

    Raises:
        DataError: the file is missing, or is not of that layout.
    """
    found = []
    for picture in _list(Path(path)):
        file = _part(picture, "image_name", path)
        for one in _part(picture, "faces", path):
            key = "kps5" if "kps5" in one else "kps"
            points = tuple((float(p[0]), float(p[1])) for p in _part(one, key, path))
            if len(points) != 5:
                raise DataError(
                    f"tokbench: expected five points per face in '{path}'; got {len(points)}. "
                    "Give TokBench's face annotation."
                )
            found.append(Face(file, points, KEYS[key], float(_part(one, "ratio", path))))
    return found


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
