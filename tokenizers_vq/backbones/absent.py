"""The place of an encoder that was not published: shapes and no network."""

from collections.abc import Sequence

from torch import Tensor

from tokenizers_vq.backbones.base import Encoder
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec


class AbsentEncoder(Encoder):
    """An encoder of a tokenizer that only decodes.

    Args:
        dim: latent width D.
        signal: what the decoded samples mean.
        stride: samples per latent position.
    """

    any_length = True

    def __init__(self, dim: int, signal: SignalSpec, stride: Sequence[int]) -> None:
        super().__init__(dim, stride, signal)

    def forward(self, x: Tensor) -> Tensor:
        """Refuse to encode.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "encode: expected a tokenizer with an encoder; got one that was published without. "
            "Decode the tokens of the tokenizer it was trained for."
        )
