"""DISTS: structure and texture similarity of VGG-16 features.

Reference:
    Ding et al., Image Quality Assessment: Unifying Structure and Texture Similarity, 2020,
    eq. 1 (L2 pooling), 4, 5 and 7. Input in [0, 1] from uint8, normalised by the ImageNet mean and
    deviation; images keep their size.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from tokenizers_vq.errors import MissingExtraError
from tokenizers_vq.metrics.base import Metric, Score, check_images, mean_score, skipped
from tokenizers_vq.metrics.weights import find_weights
from tokenizers_vq.types import Codes

STABILISER = 1e-6  # c1 and c2
TAPS = (3, 8, 15, 22, 29)  # the last ReLU of each stage of VGG-16
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class DISTS(nn.Module):
    """One minus the weighted luminance and structure similarity of the image and five stages.

    Args:
        features: a VGG feature stack; its max pools are replaced by L2 pools.
        alpha: weights of the means ``(channels of all stages,)``, the image's three first.
        beta: weights of the covariances, likewise.
        taps: numbers of the layers that are compared.
    """

    def __init__(
        self, features: nn.Sequential, alpha: Tensor, beta: Tensor, taps: tuple[int, ...] = TAPS
    ) -> None:
        super().__init__()
        self.features = features
        total = alpha.sum() + beta.sum()
        self.alpha, self.beta = alpha / total, beta / total
        self.taps = taps

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance per image ``(B,)`` of images ``(B, 3, H, W)`` in [0, 1]."""
        similarity = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        start = 0
        for a, b in zip(self._stages(x), self._stages(y), strict=True):
            weights = slice(start, start + a.shape[1])
            start += a.shape[1]
            mean_a, mean_b = a.mean((2, 3)), b.mean((2, 3))
            rest_a, rest_b = a - mean_a[..., None, None], b - mean_b[..., None, None]
            light = (2 * mean_a * mean_b + STABILISER) / (
                mean_a.square() + mean_b.square() + STABILISER
            )
            structure = (2 * (rest_a * rest_b).mean((2, 3)) + STABILISER) / (
                rest_a.square().mean((2, 3)) + rest_b.square().mean((2, 3)) + STABILISER
            )
            both = self.alpha[weights] * light + self.beta[weights] * structure
            similarity = similarity + both.sum(1)
        return 1 - similarity

    def _stages(self, x: Tensor) -> list[Tensor]:
        stages = [x]
        x = (x - x.new_tensor(MEAN).view(1, 3, 1, 1)) / x.new_tensor(STD).view(1, 3, 1, 1)
        for number, layer in enumerate(self.features[: max(self.taps) + 1]):
            x = _l2_pool(x) if isinstance(layer, nn.MaxPool2d) else layer(x)
            if number in self.taps:
                stages.append(x.clone())  # the ReLU behind it may work in place
        return stages


class Dists(Metric):
    """``dists`` per image, with the published weights of VGG-16 from this machine.

    Args:
        weights: local weights files by key, ``{"vgg16": "vgg16-397923af.pth"}``.
        resamples: bootstrap draws per interval.
        seed: of the bootstrap.
    """

    def __init__(
        self, weights: Mapping[str, str] | None = None, resamples: int = 1000, seed: int = 0
    ) -> None:
        super().__init__(resamples, seed)
        self.network: DISTS | None = None
        self.reason = ""
        try:
            self.network = _published(find_weights("vgg16", weights))
        except MissingExtraError as missing:
            self.reason = str(missing)

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Add a batch of pairs, uint8 ``(B, 3, H, W)``."""
        check_images(real, fake, "dists")
        if self.network is not None:
            with torch.inference_mode():
                self._add("dists", self.network(real / 255, fake / 255))

    def compute(self) -> dict[str, Score]:
        """Return ``dists``, or why there is none."""
        if self.reason:
            return {"dists": skipped(self.reason)}
        values = self.values.get("dists", [])
        return {"dists": mean_score(values, self.resamples, self.seed, higher=False)}


def _l2_pool(x: Tensor) -> Tensor:
    """Halve by the root of the squares weighted with a 3 x 3 Hann window (eq. 1)."""
    window = torch.hann_window(5, periodic=False, dtype=x.dtype, device=x.device)[1:-1]
    kernel = torch.outer(window, window) / window.sum().square()
    channels = x.shape[1]
    squares = conv2d(
        x.square(), kernel.expand(channels, 1, 3, 3), stride=2, padding=1, groups=channels
    )
    return (squares + 1e-12).sqrt()


@cache
def _published(path: Path) -> DISTS:
    from torchvision import models

    spec = find_spec("torchmetrics")  # carries alpha and beta, 12 KB; it is not imported
    if spec is None or spec.origin is None:
        raise MissingExtraError("package torchmetrics, which carries the DISTS weights, not found")
    network = models.vgg16(weights=None)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    table = torch.load(
        Path(spec.origin).parent / "functional/image/dists_models/weights.pt",
        map_location="cpu", weights_only=True,
    )  # fmt: skip
    model = DISTS(network.features, table["alpha"].flatten(), table["beta"].flatten())
    return model.eval().requires_grad_(requires_grad=False)
