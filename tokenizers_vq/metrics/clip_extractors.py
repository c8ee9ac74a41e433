"""Networks that turn uint8 clips into the features a distribution metric compares.

Reference:
    Unterthiner et al., Towards Accurate Generative Models of Video, 2018 (FVD); Carreira and
    Zisserman, Quo Vadis, Action Recognition?, 2017 (I3D).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.extractors import Extractor, Features, Remembering
from tokenizers_vq.metrics.video import frames_of
from tokenizers_vq.metrics.weights import find_weights

I3D_FRAMES = 10  # fewer leave nothing behind its strides
I3D_SHA256 = "bec6519f"


class FrameChanges:
    """Features of pictures over a clip: their mean, and the mean of how far they move per frame.

    The second half is the mean over t of ``|f(x_{t+1}) - f(x_t)|``, so that what freezes or
    flickers lies elsewhere, even if each frame looks right. A stand-in of ours for networks of
    videos, whose weights are in no package: no FVD, and not comparable with one.

    Args:
        pictures: the network of frames.
    """

    def __init__(self, pictures: Extractor) -> None:
        self.pictures = pictures
        self.dim = 2 * pictures.dim
        self.id = f"{pictures.id}/mean over frames, mean |change|"

    def __call__(self, images: Tensor) -> Features:
        """Return the features ``(B, 2560)`` of uint8 clips ``(B, 3, T, H, W)``, T of 2 and more."""
        if images.shape[2] < 2:
            raise ShapeError(
                f"FrameChanges: expected clips of at least 2 frames; got {tuple(images.shape)}. "
                "Use the extractor of pictures."
            )
        pooled = self.pictures(frames_of(images)).pooled
        rows = pooled.reshape(len(images), images.shape[2], -1)  # (B, T, d)
        pooled = torch.cat([rows.mean(1), rows.diff(dim=1).abs().mean(1)], dim=1)
        return Features(pooled, pooled.new_zeros(len(pooled), 0))


class I3D(Remembering):
    """The 400 Kinetics logits of I3D, as the file ``i3d_torchscript.pt`` gives them.

    The file resizes clips to 224 x 224 itself, bilinearly, and takes [-1, 1]. It is run only if its
    sha256 begins as the published one.

    Args:
        weights: ``{"i3d-torchscript": file}``.

    Raises:
        MissingExtraError: the file is not there.
        CheckpointError: it is another file.
    """

    dim = 400
    id = f"i3d-torchscript-{I3D_SHA256}/logits400/resized-224"

    def __init__(self, weights: Mapping[str, str] | None = None) -> None:
        super().__init__()
        path = find_weights("i3d-torchscript", weights)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit")  # deprecated as such
            self.network: Any = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]

    def features(self, images: Tensor) -> Features:
        """Return the logits ``(B, 400)`` of uint8 clips ``(B, 3, T, H, W)``, T of 10 and more."""
        if images.shape[2] < I3D_FRAMES:
            raise ShapeError(
                f"I3D: expected clips of at least {I3D_FRAMES} frames; got {tuple(images.shape)}. "
                "Set the frames of the protocol."
            )
        x = images.float() / 127.5 - 1
        logits = self.network(x, rescale=False, resize=True, return_features=True)
        return Features(logits, logits)
