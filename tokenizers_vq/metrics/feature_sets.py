"""What the metrics of two sets of features share: an extractor, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import MissingExtraError
from tokenizers_vq.metrics.base import Metric, Score, State, check_images, skipped
from tokenizers_vq.metrics.extractors import CLIPS, Extractor, Features, extractor
from tokenizers_vq.types import Codes


class FeatureSets(Metric):
    """Collect the features of originals and reconstructions; ``scores`` compares them.

    Args:
        extractor: a name in ``extractors.EXTRACTORS``.
        weights: local weights files by key, e.g. ``{"inception-2015-12-05": "file.pth"}``.
        resamples: bootstrap draws, pairs kept together; more than 200 are not drawn.
        seed: of the bootstrap.

    Attributes:
        names: of the scores.
        needs: images without which there is no score.

    Raises:
        ConfigError: there is no such extractor.
        CheckpointError: a weights file is not the published one.
    """

    names: tuple[str, ...] = ()
    needs = 2

    def __init__(
        self,
        extractor: str = "inception",
        weights: Mapping[str, str] | None = None,
        resamples: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__(min(resamples, 200), seed)
        self.network, self.reason = _try(extractor, weights)
        self.clips = extractor in CLIPS
        self.real: list[Tensor] = []
        self.fake: list[Tensor] = []
        self.sizes: set[tuple[int, int]] = set()

    def select(self, features: Features) -> Tensor:
        """Return the layer that is compared, ``(B, d)``."""
        return features.pooled

    def scores(self, real: Tensor, fake: Tensor) -> dict[str, Score]:
        """Return the scores by name of paired features ``(n, d)``."""
        raise NotImplementedError(f"{type(self).__name__}.scores")

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Add the features of a batch of pairs, uint8 ``(B, 3, H, W)``; 2 x 4d bytes per pair.

        An extractor of clips takes pairs ``(B, 3, T, H, W)``.
        """
        check_images(real, fake, type(self).__name__, clips=self.clips)
        if self.network is not None:
            self.real.append(self.select(self.network(real)))
            self.fake.append(self.select(self.network(fake)))
            self.sizes.add((int(real.shape[-2]), int(real.shape[-1])))

    def compute(self) -> dict[str, Score]:
        """Return the scores, or why there are none."""
        if self.network is None:
            return dict.fromkeys(self.names, skipped(self.reason))
        n = sum(map(len, self.real))
        if n < self.needs:
            reason = f"needs at least {self.needs} images, has {n}"
            return dict.fromkeys(self.names, skipped(reason))
        return self.scores(torch.cat(self.real), torch.cat(self.fake))

    def detail(self) -> dict[str, Any]:
        """Return what was compared: the extractor, the input sizes, that images are paired."""
        return {
            "extractor": "" if self.network is None else self.network.id,
            "input_px": sorted(f"{height}x{width}" for height, width in self.sizes),
            "paired": True,
        }

    def reset(self) -> None:
        """Forget every batch."""
        super().reset()
        self.real, self.fake, self.sizes = [], [], set()

    def state(self) -> State:
        """Return the features."""
        return {"real": self.real, "fake": self.fake, "sizes": sorted(self.sizes)}

    def absorb(self, state: State) -> None:
        """Add another accumulator's features."""
        self.real += state["real"]
        self.fake += state["fake"]
        self.sizes |= {(height, width) for height, width in state["sizes"]}


def _try(name: str, weights: Mapping[str, str] | None) -> tuple[Extractor | None, str]:
    """Return the extractor, or None with the reason."""
    try:
        return extractor(name, weights), ""
    except MissingExtraError as missing:
        return None, str(missing)
