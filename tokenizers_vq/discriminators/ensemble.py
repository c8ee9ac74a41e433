"""Several discriminators as one: periods and spectra, as the audio tokenizers train with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokenizers_vq.discriminators.base import Discriminator
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.judgement import Judgement


class Ensemble(Discriminator):
    """All judges of several discriminators.

    Args:
        parts: discriminators that have ``judge``.
        weights: of each; default 1.

    Shapes:
        x (B, C, T) -> (B * C, 1, N)

    Raises:
        ConfigError: no part, a part without ``judge``, or another number of weights.
    """

    def __init__(self, parts: Sequence[nn.Module], weights: Sequence[float] = ()):
        super().__init__()
        fits = bool(parts) and all(hasattr(part, "judge") for part in parts)
        if not fits or len(weights) not in (0, len(parts)):
            raise ConfigError(
                "Ensemble: expected discriminators of sound and a weight for each, or none; got "
                f"{', '.join(type(part).__name__ for part in parts) or 'no part'} and "
                f"{len(weights)} weights. Correct the discriminator config."
            )
        self.parts = nn.ModuleList(parts)
        self.weights = tuple(weights) or (1.0,) * len(parts)

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return ``dim``: the parts have no width in common."""
        return dim

    def check_signal(self, x: Tensor) -> None:
        """Raise ``ShapeError`` unless every part can judge ``x (B, C, T)``."""
        for part in self.parts:
            part.check_signal(x)  # type: ignore[operator]  # a Discriminator

    def judge(self, x: Tensor) -> list[Judgement]:
        """Return what each judge of each part says about ``x (B, C, T)``."""
        found: list[Judgement] = []
        for part, weight in zip(self.parts, self.weights, strict=True):
            judged: list[Judgement] = part.judge(x)  # type: ignore[operator]  # checked above
            found += [one._replace(weight=weight * one.weight) for one in judged]
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of all judges in a row, ``(B * C, 1, N)``, for ``x (B, C, T)``."""
        return torch.cat([one.logits.flatten(2) for one in self.judge(x)], dim=2)
