"""Networks that turn uint8 images into the features a distribution metric compares.

Each one is defined by one weights file (see ``weights.py``), one input rule and one layer; its
``id`` says so and is printed with every number.

Reference:
    Tan and Le, EfficientNet, 2019 (the "Lite" variant: ReLU6, no squeeze-excitation);
    Szegedy et al., Rethinking the Inception Architecture, 2015; Heusel et al., GANs Trained by a
    Two Time-Scale Update Rule, 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from tokenizers_vq.errors import MissingExtraError, unknown_name
from tokenizers_vq.metrics.weights import find_weights

CHUNK = 16  # images per forward pass: bounds the memory, not the result
REMEMBERED = 2  # batches: the originals and one reconstruction are asked for by two metrics


@dataclass(frozen=True)
class Features:
    """Pooled features ``(B, d)`` and class logits ``(B, classes)``, float32 on the CPU."""

    pooled: Tensor
    logits: Tensor


class Extractor(Protocol):
    """A feature network with its identity."""

    id: str
    dim: int

    def __call__(self, images: Tensor) -> Features:
        """Return the features of uint8 images ``(B, 3, H, W)``."""


class EffLite0:
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
        self._memory: list[tuple[Tensor, Features]] = []

    def __call__(self, images: Tensor) -> Features:
        """Return the features of uint8 images ``(B, 3, H, W)``; the last batches are remembered."""
        for known, features in self._memory:
            if known is images:
                return features
        with torch.inference_mode():
            parts = [self._forward(chunk) for chunk in _chunks(images)]
        features = Features(*(torch.cat(part) for part in zip(*parts, strict=True)))
        self._memory = [*self._memory, (images, features)][-REMEMBERED:]
        return features

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = (images.float() - 127) / 128
        pooled = self.network.extract_features(x).mean((2, 3))
        return pooled, self.network._fc(pooled)


class Inception:
    """The Inception network of 2015-12-05 with TF1 bilinear resizing: the one FID is defined by.

    Args:
        weights: ``{"inception-2015-12-05": file}``.

    Raises:
        MissingExtraError: the weights file or the package torch-fidelity is missing.
    """

    dim = 2048
    id = "inception-2015-12-05-6726825d/pool3-2048/tf1-bilinear-299"

    def __init__(self, weights: Mapping[str, str] | None = None) -> None:
        path = find_weights("inception-2015-12-05", weights)
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise MissingExtraError(
                "package torch-fidelity not found; pip install 'tokenizers-vq[eval]'"
            ) from error
        self.network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], str(path)
        )
        self.network.eval()

    def __call__(self, images: Tensor) -> Features:
        """Return the features of uint8 images ``(B, 3, H, W)``."""
        with torch.inference_mode():
            parts = [self.network(chunk) for chunk in _chunks(images)]
        return Features(*(torch.cat(part).float().cpu() for part in zip(*parts, strict=True)))


EXTRACTORS: dict[str, Any] = {"efflite0": EffLite0, "inception": Inception}


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
    built: Extractor = EXTRACTORS[name](dict(weights))
    return built


def _chunks(images: Tensor) -> list[Tensor]:
    return [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
