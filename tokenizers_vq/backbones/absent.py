"""The places of an encoder or a decoder that was not published: shapes and no network."""

from collections.abc import Sequence

from torch import Tensor

from tokenizers_vq.backbones.base import Decoder, Encoder
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


class AbsentDecoder(Decoder):
    """A decoder of a tokenizer that only encodes: its tokens are for language models.

    Args:
        dim: latent width D.
        signal: what the encoded samples mean.
        stride: samples per latent position.
    """

    def __init__(self, dim: int, signal: SignalSpec, stride: Sequence[int]) -> None:
        super().__init__(dim, stride, signal)

    @property
    def last_layer(self) -> Tensor:
        """Refuse to train.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "training: expected a tokenizer with a decoder; got one that only encodes. "
            "Put a decoder of its stride behind it."
        )

    def forward(self, z_q: Tensor) -> Tensor:
        """Refuse to decode.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "decode: expected a tokenizer with a decoder; got one that only encodes. Give its "
            "tokens to a language model or to a vocoder that was trained for them."
        )
