"""The photographs that lie inside installed Python packages: real data without a download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from tokenizers_vq.data.photos import Photos
from tokenizers_vq.errors import ConfigError, MissingExtraError


@dataclass(frozen=True)
class WheelPhoto:
    """One photograph inside a package.

    Attributes:
        id: its name in the data set.
        module: the module in whose folder it lies.
        path: where in that folder.
        split: ``"train"``, or ``"heldout"``: never trained on.
        licence: as its package or its source states it.
        credit: photographer or source.
    """

    id: str
    module: str
    path: str
    split: Literal["train", "heldout"]
    licence: str
    credit: str


# Of the 30 pictures in the three packages those that are photographs worth learning from. Not here:
# drawings and boards (color, logo, chessboards, phantom, horse), pages of text, pictures with next
# to no content (cell, clock_motion, moon, microaneurysms), plain grey textures (brick, grass,
# gravel), and the two motorcycles, whose source states no licence.
PHOTOS = (
    WheelPhoto("astronaut", "skimage", "data/astronaut.png", "train", "public domain", "NASA"),
    WheelPhoto("camera", "skimage", "data/camera.png", "train", "CC0-1.0", "Lav Varshney"),
    WheelPhoto("chelsea", "skimage", "data/chelsea.png", "heldout", "CC0-1.0", "S. van der Walt"),
    WheelPhoto("china", "sklearn", "datasets/images/china.jpg", "heldout", "CC-BY-2.0",
               "danielbuechele, flickr.com/photos/danielbuechele/6061409035"),
    WheelPhoto("coffee", "skimage", "data/coffee.png", "heldout", "CC0-1.0", "Rachel Michetti"),
    WheelPhoto("coins", "skimage", "data/coins.png", "train", "no known copyright restrictions",
               "Brooklyn Museum"),
    WheelPhoto("flower", "sklearn", "datasets/images/flower.jpg", "train", "CC-BY-2.0",
               "vultilion, flickr.com/photos/vultilion/6056698931"),
    WheelPhoto("grace_hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "heldout",
               "public domain", "James S. Davis, US Navy"),
    WheelPhoto("hubble_deep_field", "skimage", "data/hubble_deep_field.jpg", "train",
               "public domain", "NASA, hubblesite.org release 2012-37"),
    WheelPhoto("immunohistochemistry", "skimage", "data/ihc.png", "train",
               "no known copyright restrictions", "Center for Microscopy and Molecular Imaging"),
    WheelPhoto("retina", "skimage", "data/retina.jpg", "train", "CC0-1.0", "Mikael Haggstrom"),
    WheelPhoto("rocket", "skimage", "data/rocket.jpg", "train", "public domain", "SpaceX"),
)  # fmt: skip

PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}


class WheelPhotos(Photos):
    """Photographs inside scikit-image, scikit-learn and matplotlib; those packages stay unimported.

    Args:
        split: ``"train"`` (8 photos, 2 of them grey), ``"heldout"`` (4: a cat, a cup, a building, a
            face) or ``"all"``.
        size: side in pixels of the square crop; None gives whole pictures of their own size.
        train: random crops, else the centre of the picture with its shorter side resized.
        augment: fields of ``transforms.Augment`` for training crops.
        seed: of the random crops.
        cache: keep the decoded pictures in memory; 16 MB for all of them.

    Shapes:
        item ``(3, size, size)`` or ``(3, H, W)`` float32 in [-1, 1]

    Raises:
        ConfigError: an unknown split.
        MissingExtraError: one of the packages is not installed.
    """

    def __init__(
        self,
        split: Literal["train", "heldout", "all"] = "all",
        size: int | None = None,
        train: bool = False,
        augment: Mapping[str, Any] | None = None,
        seed: int = 0,
        cache: bool = True,
    ) -> None:
        files = {photo.id: _folder(photo.module) / photo.path for photo in wheel_photos(split)}
        super().__init__(files, size, train, augment, seed, cache)


def wheel_photos(split: str = "all") -> list[WheelPhoto]:
    """Return the table rows of a split, for credits.

    Raises:
        ConfigError: an unknown split.
    """
    if split not in ("train", "heldout", "all"):
        raise ConfigError(f"WheelPhotos: expected split train, heldout or all; got '{split}'.")
    return [photo for photo in PHOTOS if split in ("all", photo.split)]


def _folder(module: str) -> Path:
    """Return the folder of a top-level module without importing it.

    Raises:
        MissingExtraError: the package is not installed.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"WheelPhotos: expected the package {PACKAGES[module]}, which holds some of the "
            "photos; got none. pip install 'tokenizers-vq[demo]'."
        )
    return Path(spec.origin).parent
