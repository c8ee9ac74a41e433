"""Perceptual similarity of paired images: LPIPS, and two stand-ins that need no download.

``cos-EffLite0`` is the cosine of EfficientNet-Lite0 features, ``keep-EffLite0`` the share of
images whose top-1 label survives. They order damage the way LPIPS does, on another scale.

Reference:
    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018,
    eq. 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import MissingExtraError
from tokenizers_vq.metrics.base import Metric, Score, check_images, choose, mean_score, skipped
from tokenizers_vq.metrics.extractors import extractor
from tokenizers_vq.metrics.weights import find_weights
from tokenizers_vq.types import Codes

NAMES = ("lpips-alex", "lpips-vgg", "cos-EffLite0", "keep-EffLite0")
KEYS = {"alex": "alexnet-owt", "vgg": "vgg16"}
TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}  # the ReLUs the linear heads look at
SHIFT = (-0.030, -0.088, -0.188)  # of images in [-1, 1], as LPIPS v0.1 was trained
SCALE = (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """LPIPS v0.1: squared differences of unit-normalised features, weighted per channel.

    Args:
        features: a torchvision feature stack (``alexnet().features`` or ``vgg16().features``).
        heads: per tap the channel weights ``(C,)``.
        taps: numbers of the layers whose output is compared.
    """

    def __init__(self, features: nn.Sequential, heads: Sequence[Tensor], taps: Sequence[int]):
        super().__init__()
        self.features = features
        self.heads = list(heads)
        self.taps = tuple(taps)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance per image ``(B,)`` of images ``(B, 3, H, W)`` in [-1, 1]."""
        total = torch.zeros(len(x), device=x.device)
        for a, b, head in zip(self._tapped(x), self._tapped(y), self.heads, strict=True):
            difference = (_unit(a) - _unit(b)).square()
            total = total + (difference * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total

    def _tapped(self, x: Tensor) -> list[Tensor]:
        x = (x - x.new_tensor(SHIFT).view(1, 3, 1, 1)) / x.new_tensor(SCALE).view(1, 3, 1, 1)
        outputs = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                outputs.append(x)
        return outputs[: len(self.taps)]


def lpips(backbone: str, weights: Mapping[str, str] | None = None) -> LPIPS:
    """Return LPIPS with the published weights of ``backbone`` (``alex`` or ``vgg``).

    Raises:
        MissingExtraError: the torchvision weights file is not on this machine.
    """
    return _lpips(backbone, find_weights(KEYS[backbone], weights))


class Perceptual(Metric):
    """LPIPS and the EfficientNet-Lite0 stand-ins, per image.

    Args:
        names: which of ``lpips-alex``, ``lpips-vgg``, ``cos-EffLite0``, ``keep-EffLite0``.
        weights: local weights files by key, e.g. ``{"alexnet-owt": "alexnet.pth"}``.
        resamples: bootstrap draws per interval.
        seed: of the bootstrap.

    Raises:
        ConfigError: ``names`` holds another name.
        CheckpointError: a weights file is not the published one.
    """

    def __init__(
        self,
        names: Sequence[str] = NAMES,
        weights: Mapping[str, str] | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(resamples, seed)
        self.names = choose("perceptual metric", names, NAMES)
        self.weights = dict(weights or {})
        self.reasons = {name: reason for name in self.names if (reason := self._missing(name))}

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Add a batch of pairs, uint8 ``(B, 3, H, W)``."""
        check_images(real, fake, "perceptual")
        for name in self.names:
            if name not in self.reasons:
                self._add(name, self._values(name, real, fake))

    def compute(self) -> dict[str, Score]:
        """Return one score per chosen name; the missing ones say what they need."""
        return {name: self._score(name) for name in self.names}

    def _score(self, name: str) -> Score:
        if name in self.reasons:
            return skipped(self.reasons[name])
        higher = not name.startswith("lpips")
        return mean_score(self.values.get(name, []), self.resamples, self.seed, higher=higher)

    def _missing(self, name: str) -> str:
        try:
            if name.startswith("lpips-"):
                lpips(name.removeprefix("lpips-"), self.weights)
            else:
                extractor("efflite0", self.weights)
        except MissingExtraError as missing:
            return str(missing)
        return ""

    def _values(self, name: str, real: Tensor, fake: Tensor) -> Tensor:
        if name.startswith("lpips-"):
            model = lpips(name.removeprefix("lpips-"), self.weights)
            with torch.inference_mode():
                return model.forward(real / 127.5 - 1, fake / 127.5 - 1)
        network = extractor("efflite0", self.weights)
        a, b = network(real), network(fake)
        if name == "cos-EffLite0":
            return torch.cosine_similarity(a.pooled, b.pooled, dim=1)
        return (a.logits.argmax(1) == b.logits.argmax(1)).double()


@cache
def _lpips(backbone: str, path: Path) -> LPIPS:
    from torchvision import models

    builder = models.alexnet if backbone == "alex" else models.vgg16
    network = builder(weights=None)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    heads = _torchmetrics_folder() / f"functional/image/lpips_models/{backbone}.pth"
    table = torch.load(heads, map_location="cpu", weights_only=True)
    columns = [table[f"lin{k}.model.1.weight"].flatten() for k in range(len(TAPS[backbone]))]
    model = LPIPS(network.features, columns, TAPS[backbone])
    return model.eval().requires_grad_(requires_grad=False)


def _torchmetrics_folder() -> Path:
    """Return where torchmetrics lies, which carries the published heads, without importing it."""
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        raise MissingExtraError("package torchmetrics, which carries the LPIPS heads, not found")
    return Path(spec.origin).parent


def _unit(x: Tensor) -> Tensor:
    """Divide by the channel norm; 1e-10 keeps a dead position from dividing by zero."""
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
