"""What all sets of picture files share: reading, broken files, crops, the cache, the data hash."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.decode import try_open, try_read_rgb
from tokenizers_vq.data.transforms import (
    Augment,
    difference_hash,
    draw_generator,
    eval_view,
    image_to_signal,
    train_view,
)
from tokenizers_vq.errors import DataError
from tokenizers_vq.types import SignalSpec

COPY_BITS = 6
"""Pictures whose difference hashes differ in at most this many of 64 bits count as copies."""

log = logging.getLogger(__name__)


class Photos(SignalDataset):
    """Picture files by name.

    Files that cannot be read are left out, counted and named once. With ``train`` and without
    ``cache`` only the headers are read at construction; a file that then turns out to be truncated,
    or is deleted during the run, is replaced from there on by the next good one in the list. In
    all other cases every file is decoded at construction, and ``ids`` are the good ones.

    Args:
        files: id -> path.
        size: side in pixels of the square crop; None gives whole pictures of their own size.
        train: random crops, else the centre of the picture with its shorter side resized.
        augment: fields of ``Augment``.
        seed: of the random crops.
        cache: keep the decoded pictures in memory, 3 bytes per pixel.
        copies_of: data sets whose pictures, and copies of them in any size or codec, are left out.
        skipped: files that are left out already, with the reason.

    Shapes:
        item ``(3, size, size)`` or ``(3, H, W)`` float32 in [-1, 1]

    Raises:
        DataError: no picture is left.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        size: int | None = None,
        train: bool = False,
        augment: Mapping[str, Any] | None = None,
        seed: int = 0,
        cache: bool = False,
        copies_of: Sequence[Photos] = (),
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        self.size, self.train, self.seed = size, train, seed
        self.augment = Augment(**(augment or {}))
        self._pixels: dict[str, np.ndarray] = {}
        self._reasons = dict(skipped or {})
        self._files = {}
        decode = cache or not train or len(copies_of) > 0
        strangers = [(id_, bits) for other in copies_of for id_, bits in other.hashes().items()]
        for id_ in sorted(files):
            reason = self._admit(id_, files[id_], cache, strangers) if decode else None
            reason = reason if decode else try_open(files[id_])
            if reason is None:
                self._files[id_] = files[id_]
            else:
                self._reasons[id_] = reason
        self._name_skipped()
        super().__init__(list(self._files), SignalSpec("image"))
        # in shared memory, so that what one loader worker finds broken no other names again
        self._broken = torch.zeros(len(self), dtype=torch.uint8)
        self._broken.share_memory_()  # type: ignore[no-untyped-call]  # torch has no types for it

    def _admit(
        self, id_: str, path: Path, cache: bool, strangers: Sequence[tuple[str, np.ndarray]]
    ) -> str | None:
        """Decode one file; keep its pixels if asked to; return why it is left out, or None."""
        image = try_read_rgb(path)
        if isinstance(image, str):
            return image
        bits = difference_hash(image) if strangers else np.empty(0)
        for other, theirs in strangers:
            distance = int(np.count_nonzero(bits != theirs))
            if distance <= COPY_BITS:
                return f"a copy of {other}, {distance} of 64 hash bits apart"
        if cache:
            self._pixels[id_] = np.array(image)
        return None

    def _name_skipped(self) -> None:
        """Say once which files are left out, and raise if that leaves none.

        Raises:
            DataError: no picture is left.
        """
        where, total = type(self).__name__, len(self._files) + len(self._reasons)
        named = [f"{id_}: {reason}" for id_, reason in sorted(self._reasons.items())]
        if not self._files:
            first = f" (first: {named[0]})" if named else ""
            raise DataError(
                f"{where}: expected at least one readable picture; got {total} files, "
                f"none of them usable{first}."
            )
        if named and _is_first_rank():
            log.warning(
                "%s: left out %d of %d files: %s", where, len(named), total, "; ".join(named)
            )

    def item(self, index: int, epoch: int) -> Tensor:
        """Return picture ``index`` as ``epoch`` shows it, ``(3, H, W)`` float32 in [-1, 1]."""
        image = self.photo(index)
        if self.train:
            generator = draw_generator(self.seed, epoch, index)
            return image_to_signal(train_view(image, self.size, self.augment, generator))
        return image_to_signal(eval_view(image, self.size))

    def photo(self, index: int) -> Image.Image:
        """Return the whole RGB picture ``index``, or the next one in the list that can be read.

        Raises:
            DataError: not one of the files can be read any more.
        """
        for step in range(len(self)):
            image = self._read((index + step) % len(self))
            if image is not None:
                return image
        raise DataError(
            f"{type(self).__name__}: expected at least one readable picture; "
            f"got {len(self)} files, none of them readable any more. Is the disk still there?"
        )

    def _read(self, index: int) -> Image.Image | None:
        """Return one picture; if it cannot be read, remember that, name it, and return None."""
        id_ = self.ids[index]
        if id_ in self._pixels:
            return Image.fromarray(self._pixels[id_])
        if self._broken[index]:
            return None
        image = try_read_rgb(self._files[id_])
        if isinstance(image, Image.Image):
            return image
        self._broken[index] = 1
        where = type(self).__name__
        log.warning("%s: from here on the next file stands in for %s: %s", where, id_, image)
        return None

    def hashes(self) -> dict[str, np.ndarray]:
        """Return id -> 64 bits of the difference hash of the whole picture."""
        return {id_: difference_hash(self.photo(index)) for index, id_ in enumerate(self.ids)}

    def sha256(self) -> str:
        """Return the hex digest over the ids and the bytes of their files; reads every file.

        Raises:
            DataError: a file was deleted since the set was made.
        """
        digest = hashlib.sha256()
        for id_, path in self._files.items():
            try:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                where = f"{type(self).__name__}.sha256"
                raise DataError(f"{where}: expected the file '{path}'; got {error}.") from error
            digest.update(f"{id_}\0{content}\n".encode())
        return digest.hexdigest()

    @property
    def skipped(self) -> dict[str, str]:
        """Files that are not used, with the reason; grows when a run meets a broken file."""
        found = dict(self._reasons)
        for index in self._broken.nonzero().flatten().tolist():
            image = try_read_rgb(self._files[self.ids[index]])
            found[self.ids[index]] = image if isinstance(image, str) else "was not readable once"
        return found


def _is_first_rank() -> bool:
    """Tell whether this process is the one of a launch that speaks for all of them."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK"))
