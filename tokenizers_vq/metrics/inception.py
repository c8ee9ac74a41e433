"""The Inception network of 2015-12-05 in the flavours that published FIDs were made with.

One weights file, one network; the flavours differ in how a picture gets to 299 px, which moves an
FID more than anything else in it:

==================  ====================================================  =========================
flavour             resize to 299 px                                      used by
==================  ====================================================  =========================
``tf1``             bilinear, no half-pixel offset, no antialias          ADM suite, torch-fidelity
``clean``           Pillow's bicubic in float, antialiased, clipped       clean-fid
``halfpixel``       bilinear with half-pixel offset, no antialias         pytorch-fid
==================  ====================================================  =========================

Reference:
    Szegedy et al., Rethinking the Inception Architecture, 2015; Heusel et al., GANs Trained by a
    Two Time-Scale Update Rule, 2017; Parmar et al., On Aliased Resizing, 2022; Nash et al.,
    Generating Images with Sparse Representations, 2021 (the spatial features of sFID).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tokenizers_vq.errors import MissingExtraError
from tokenizers_vq.metrics.extractors import Features, Remembering
from tokenizers_vq.metrics.weights import find_weights

SIDE = 299
SPATIAL = 7  # channels of the 17 x 17 layer that sFID compares: 7 x 17 x 17 = 2023
HEAD = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1",
    "Conv2d_4a_3x3", "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b",
    "Mixed_6c",
)  # fmt: skip
TAIL = ("Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c")


class Inception(Remembering):
    """2048 pooled features, 2023 spatial ones, 1008 logits without the bias of the last layer.

    Args:
        weights: ``{"inception-2015-12-05": file}``.
        flavour: how pictures are resized, from the table above.

    Raises:
        MissingExtraError: the weights file or the package torch-fidelity is missing.
    """

    dim = 2048

    def __init__(self, weights: Mapping[str, str] | None = None, flavour: str = "tf1") -> None:
        super().__init__()
        path = find_weights("inception-2015-12-05", weights)
        self.network = _network(str(path))
        self.resize = RESIZES[flavour]
        self.id = f"inception-2015-12-05-6726825d/pool3-2048/{flavour}-{SIDE}"

    def features(self, images: Tensor) -> Features:
        """Return the features of uint8 images ``(B, 3, H, W)``."""
        net: Any = self.network
        x = (self.resize(images) - 128) / 128
        for name in HEAD:
            x = getattr(net, name)(x)
        # sFID's `mixed_6/conv` of the TensorFlow graph is the 1 x 1 branch of this block
        spatial = net.Mixed_6d.branch1x1(x)[:, :SPATIAL].flatten(1)
        for name in TAIL:
            x = getattr(net, name)(x)
        pooled = x.mean((2, 3))
        return Features(pooled, pooled @ net.fc.weight.T, spatial)


def tf1_bilinear(images: Tensor) -> Tensor:
    """Return uint8 images at 299 px as TensorFlow 1 resizes: sample i sits at i x in / out."""
    x = images.float()
    for axis in (2, 3):
        size = x.shape[axis]
        position = torch.arange(SIDE, dtype=torch.float32) * (size / SIDE)
        low = position.long().clamp(max=size - 1)
        high = (low + 1).clamp(max=size - 1)
        shape = [-1 if axis == k else 1 for k in range(4)]
        share = (position - low).view(shape)
        a, b = x.index_select(axis, low), x.index_select(axis, high)
        x = a + (b - a) * share
    return x


def halfpixel_bilinear(images: Tensor) -> Tensor:
    """Return uint8 images at 299 px as torch resizes without antialiasing."""
    return interpolate(images.float(), (SIDE, SIDE), mode="bilinear", align_corners=False)


def clean_bicubic(images: Tensor) -> Tensor:
    """Return uint8 images at 299 px by Pillow's bicubic filter, channels in float, 0..255."""
    if images.shape[2:] == (SIDE, SIDE):
        return images.float()
    planes = [
        np.asarray(
            Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32
        )
        for plane in images.flatten(0, 1).float().numpy()
    ]
    resized = torch.from_numpy(np.stack(planes)).clamp(0, 255)
    return resized.view(*images.shape[:2], SIDE, SIDE)


RESIZES: dict[str, Callable[[Tensor], Tensor]] = {
    "tf1": tf1_bilinear,
    "clean": clean_bicubic,
    "halfpixel": halfpixel_bilinear,
}


def _network(path: str) -> nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MissingExtraError(
            "package torch-fidelity not found; pip install 'tokenizers-vq[eval]'"
        ) from error
    network: nn.Module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], path)
    return network.eval()
