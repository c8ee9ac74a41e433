"""Feature matching: the distance of what a discriminator's layers see in signal and reconstruction.

Larsen et al., Autoencoding beyond pixels, 2016, https://arxiv.org/abs/1512.09300, eq. 8, by L1 and
over several discriminators, Kumar et al., MelGAN, 2019, https://arxiv.org/abs/1910.06711, eq. 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.judgement import Judgement

REDUCTIONS = ("sum", "mean")


@dataclass(frozen=True)
class FeatureMatching:
    """The weighted sum over discriminators of a sum or mean over their layers of an L1 distance.

    The published forms: DAC sums over the activations without the logits (and weighs with 2);
    SpeechTokenizer with the logits; Vocos, too, over a share 1 / n of each of n discriminators,
    and its period discriminators leave the first layer out; EnCodec's training code averages over
    layers; its paper, eq. 4, divides by the mean of the signal's features, too.

    Attributes:
        layers: ``sum`` or ``mean``.
        relative: divide each distance by the mean magnitude of the signal's features.
        logits: count the logits as a last layer.

    Raises:
        ConfigError: another reduction.
    """

    layers: str = "sum"
    relative: bool = False
    logits: bool = False

    def __post_init__(self) -> None:
        if self.layers not in REDUCTIONS:
            raise unknown_name("feature matching of layers", self.layers, REDUCTIONS)

    def __call__(self, real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
        """Return the loss ``()`` float32; no gradient flows to ``real``.

        Args:
            real: of the signals, by discriminator.
            fake: of the reconstructions.

        Raises:
            ConfigError: a discriminator shows no features.
        """
        if not all(one.features for one in real):
            raise ConfigError(
                "adv/features: expected a discriminator that shows its features; got logits only. "
                "Take the term out of the weights, or use one of the audio discriminators."
            )
        terms = [a.weight * self._one(a, b) for a, b in zip(real, fake, strict=True)]
        return torch.stack(terms).sum()

    def _one(self, real: Judgement, fake: Judgement) -> Tensor:
        pairs = list(zip(real.features, fake.features, strict=True))
        if self.logits:
            pairs.append((real.logits, fake.logits))
        distances = torch.stack([self._distance(a.detach().float(), b.float()) for a, b in pairs])
        return distances.sum() if self.layers == "sum" else distances.mean()

    def _distance(self, real: Tensor, fake: Tensor) -> Tensor:
        distance = (real - fake).abs().mean()
        return distance / real.abs().mean().clamp(min=1e-8) if self.relative else distance
