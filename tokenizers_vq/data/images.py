"""A folder of pictures, with or without a manifest."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from tokenizers_vq.data.files import share_of
from tokenizers_vq.data.photos import Photos
from tokenizers_vq.errors import ConfigError, DataError

SUFFIXES = {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm"} | {
    ".png",
    ".ppm",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
}


class ImageFolder(Photos):
    """All pictures below a folder, or those that a manifest lists.

    Args:
        root: the folder; searched to any depth, links followed, names with a leading dot left out.
        size: side in pixels of the square crop; None gives whole pictures of their own size.
        train: random crops, else the centre of the picture with its shorter side resized.
        split: ``"val"`` takes 1 file in 20 (at least one) by a hash of its name, ``"train"`` the
            others, so that new files never move old ones; ``"all"`` takes every file.
        manifest: a CSV file with a column ``file``, paths relative to ``root``; relative to
            ``root`` itself.
        where: columns of the manifest and the value, or list of values, that a row must have.
        exclude: patterns of file names to leave out (``"*/thumbs/*"``), and data sets of pictures:
            files that are copies of one of theirs, in any size or codec, are left out as well.
        augment: fields of ``transforms.Augment`` for training crops.
        seed: of the random crops.
        cache: keep the decoded pictures in memory, 3 bytes per pixel.

    Shapes:
        item ``(3, size, size)`` or ``(3, H, W)`` float32 in [-1, 1]

    Raises:
        ConfigError: an unknown split, or ``where`` without a manifest.
        DataError: the folder, the manifest or a column does not exist, or no picture is left.
    """

    def __init__(
        self,
        root: str | Path,
        size: int | None = None,
        train: bool = False,
        split: Literal["all", "train", "val"] = "all",
        manifest: str | None = None,
        where: Mapping[str, Any] | None = None,
        exclude: Sequence[str | Photos] = (),
        augment: Mapping[str, Any] | None = None,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise DataError(
                f"ImageFolder: expected a folder; got '{root}', which is none. "
                "Set data.root=/path/to/pictures."
            )
        if where and manifest is None:
            raise ConfigError("ImageFolder: expected a manifest to go with 'where'; got none.")
        names = _walk(self.root) if manifest is None else _listed(self.root, manifest, where or {})
        patterns = [one for one in exclude if isinstance(one, str)]
        names = [n for n in names if not any(fnmatch(n, pattern) for pattern in patterns)]
        files, skipped = {}, {}
        for name in share_of("ImageFolder", sorted(set(names)), split):
            reason = _why_not_a_file(self.root / name)
            if reason is None:
                files[name] = self.root / name
            else:
                skipped[name] = reason
        others = [one for one in exclude if not isinstance(one, str)]
        super().__init__(files, size, train, augment, seed, cache, others, skipped)


def _walk(root: Path) -> list[str]:
    """Return the names of all picture files below ``root``, relative to it, with ``/``."""
    return [path.relative_to(root).as_posix() for path in _pictures(root, frozenset())]


def _pictures(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """Yield the picture files below a folder; ``above`` stops a link that leads back up."""
    here = os.path.realpath(folder)
    if here in above:
        return
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _pictures(Path(entry.path), above | {here})
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            yield Path(entry.path)


def _listed(root: Path, manifest: str, where: Mapping[str, Any]) -> list[str]:
    """Return the ``file`` column of the manifest's rows that ``where`` accepts.

    Raises:
        DataError: the manifest or one of its columns does not exist.
    """
    path = root / manifest
    if not path.is_file():
        raise DataError(f"ImageFolder: expected a manifest '{path}'; got no such file.")
    with open(path, newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        columns = reader.fieldnames or []
        for column in ("file", *where):
            if column not in columns:
                raise DataError(
                    f"ImageFolder: expected a column '{column}' in '{path}'; "
                    f"got {', '.join(columns) or 'none'}."
                )
        wanted = {column: _as_words(value) for column, value in where.items()}
        return [row["file"] for row in reader if all(row[c] in v for c, v in wanted.items())]


def _as_words(value: Any) -> set[str]:
    """Return the accepted values of a column as strings, as a CSV file holds them."""
    values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    return {str(one) for one in values}


def _why_not_a_file(path: Path) -> str | None:
    """Return why a path is no file with content, or None; a pipe would block whoever opens it."""
    try:
        status = path.stat()
    except OSError:
        return "no such file"
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    return None if status.st_size else "an empty file"
