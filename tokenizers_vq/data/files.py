"""What folders of files share: which files, and that some turn out to be unusable."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from torch import Tensor

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.transforms import draw_generator
from tokenizers_vq.errors import DataError, unknown_name
from tokenizers_vq.types import SignalSpec

SPLITS = ("all", "train", "val")
VAL_SHARE = 0.05
"""Share of the files that ``split="val"`` takes."""

log = logging.getLogger(__name__)


class FileFolder(SignalDataset):
    """Signals of the files below a folder; those that cannot be used are counted and named once.

    What turns out to be unusable in a run is replaced from there on by the next good file of the
    list. A subclass sets its options first, then calls this constructor.

    Args:
        root: the folder; searched to any depth, names with a leading dot left out.
        signal: what the numbers mean.
        train: random crops, else the same ones each time.
        seed: of crops.
        split: see ``share_of``.
        only: patterns of file names to take; empty for all.
        exclude: patterns of file names to leave out.
        stems: file names without suffix to take; None for all.

    Attributes:
        noun: what a file holds.
        suffixes: of files that may hold it, in small letters.

    Raises:
        ConfigError: an unknown split.
        DataError: the folder does not exist, or no file is left.
    """

    noun = "signal"
    suffixes: Collection[str] = ()

    def __init__(
        self,
        root: str | Path,
        signal: SignalSpec,
        train: bool,
        seed: int,
        split: str = "all",
        only: Sequence[str] = (),
        exclude: Sequence[str] = (),
        stems: Collection[str] | None = None,
    ) -> None:
        where = type(self).__name__
        self.root, self.train, self.seed = Path(root).expanduser(), train, seed
        if not self.root.is_dir():
            raise DataError(
                f"{where}: expected a folder; got '{self.root}', which is none. "
                f"Set data.root to a folder of {self.noun} files."
            )
        names = names_below(self.root, self.suffixes, only, exclude)
        names = [name for name in names if stems is None or Path(name).stem in stems]
        self._reasons: dict[str, str] = {}
        good = []
        for name in share_of(where, names, split):
            reason = self.why_not(name)
            if reason is None:
                good.append(name)
            else:
                self._reasons[name] = reason
        self._name_skipped(len(good))
        super().__init__(good, signal)

    def why_not(self, name: str) -> str | None:
        """Return why a file cannot be used, or None; before training this should be quick."""
        raise NotImplementedError(f"{type(self).__name__}.why_not")

    def read(self, name: str, generator: np.random.Generator | None) -> Tensor | str:
        """Return the signal of a file, a random crop with a generator, or why there is none."""
        raise NotImplementedError(f"{type(self).__name__}.read")

    def finished(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """Return a signal as it is given out."""
        return x

    def item(self, index: int, epoch: int) -> Tensor:
        """Return the signal of file ``index``, or of the next one that can be used.

        Raises:
            DataError: not one of the files can be used any more.
        """
        where, generator = type(self).__name__, draw_generator(self.seed, epoch, index)
        for offset in range(len(self)):
            name = self.ids[(index + offset) % len(self)]
            if name in self._reasons:
                continue
            found = self.read(name, generator if self.train else None)
            if isinstance(found, Tensor):
                return self.finished(found, generator)
            self._reasons[name] = found
            log.warning("%s: from here on the next file stands in for %s: %s", where, name, found)
        raise DataError(
            f"{where}: expected at least one usable {self.noun}; got {len(self)} files, none of "
            "them usable any more. Is the disk still there?"
        )

    def sha256(self) -> str:
        """Return the hex digest over the ids and the bytes of their files; reads every file."""
        return digest_of_files(self.root, self.ids)

    @property
    def skipped(self) -> dict[str, str]:
        """Files that are not used, with the reason; grows when a run meets an unusable file."""
        return dict(self._reasons)

    def _name_skipped(self, good: int) -> None:
        """Say once which files are left out, and raise ``DataError`` if that leaves none."""
        where = type(self).__name__
        named = [f"{id_}: {reason}" for id_, reason in sorted(self._reasons.items())]
        total = good + len(named)
        if not good:
            first = f" (first: {named[0]})" if named else ""
            raise DataError(
                f"{where}: expected at least one usable {self.noun} in '{self.root}'; got {total} "
                f"files, none of them usable{first}."
            )
        if named:
            log.warning(
                "%s: left out %d of %d files: %s", where, len(named), total, "; ".join(named)
            )


def share_of(where: str, names: list[str], split: str) -> list[str]:
    """Return the names of a split: ``"val"`` takes 1 in 20 by their hashes, ``"train"`` the others.

    Raises:
        ConfigError: an unknown split.
    """
    if split not in SPLITS:
        raise unknown_name(f"{where} split", split, SPLITS)
    if split == "all" or not names:
        return names
    place = {name: int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32 for name in names}
    first = min(names, key=lambda name: place[name])
    return [n for n in names if (place[n] < VAL_SHARE or n == first) == (split == "val")]


def digest_of_files(root: Path, ids: Iterable[str]) -> str:
    """Return the hex digest over ids and the bytes of their files below ``root``."""
    digest = hashlib.sha256()
    for id_ in ids:
        content = hashlib.sha256((root / id_).read_bytes()).hexdigest()
        digest.update(f"{id_}\0{content}\n".encode())
    return digest.hexdigest()


def names_below(
    root: Path, suffixes: Collection[str], only: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[str]:
    """Return the sorted names of all files below ``root``, relative to it, hidden ones left out.

    Args:
        root: the folder.
        suffixes: in small letters, with the dot.
        only: shell patterns, one of which a name has to match; none for all names.
        exclude: shell patterns that no name may match.
    """
    paths = (path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    names = (path.relative_to(root) for path in paths)
    shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
    words = [name.as_posix() for name in shown]
    kept = [w for w in words if not only or any(fnmatch(w, pattern) for pattern in only)]
    return sorted(w for w in kept if not any(fnmatch(w, pattern) for pattern in exclude))
