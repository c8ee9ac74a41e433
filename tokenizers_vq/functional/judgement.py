"""What one discriminator of several says about a batch of signals."""

from typing import NamedTuple

from torch import Tensor


class Judgement(NamedTuple):
    """One discriminator's opinion.

    Attributes:
        logits: ``(B, 1, *map)``; positive means "real".
        features: activations of its layers, first to last, without the logits.
        weight: what its losses count.
    """

    logits: Tensor
    features: tuple[Tensor, ...] = ()
    weight: float = 1.0
