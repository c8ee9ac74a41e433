"""What every encoder and decoder promises: the shapes between a signal and its latents."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, ShapeError, check_shape
from tokenizers_vq.functional.framing import grid_shape
from tokenizers_vq.types import SignalSpec

# Names of the sample axes in error messages.
AXES = {"image": "H W", "video": "T H W", "audio": "T", "volume": "X Y Z"}


class Backbone(nn.Module, ABC):
    """What an encoder and its decoder have in common.

    Args:
        dim: latent width D, the width the quantizer sees.
        stride: samples per latent position, one per sample axis.
        signal: what the numbers of the signal mean.

    Raises:
        ConfigError: ``dim`` or a stride is below 1, or the signal has another number of axes.
    """

    dim: int
    stride: tuple[int, ...]
    signal: SignalSpec

    def __init__(self, dim: int, stride: Sequence[int], signal: SignalSpec) -> None:
        super().__init__()
        where = type(self).__name__
        if dim < 1 or any(step < 1 for step in stride):
            raise ConfigError(
                f"{where}: expected dim and stride of at least 1; got dim {dim}, stride "
                f"{tuple(stride)}. Correct the backbone config."
            )
        if len(stride) != signal.axes:
            raise ConfigError(
                f"{where}: expected a signal with {len(stride)} sample axes; got {signal.kind!r} "
                f"with {signal.axes}. Choose a backbone for that kind."
            )
        self.dim = dim
        self.stride = tuple(stride)
        self.signal = signal


class Encoder(Backbone):
    """Maps a signal ``x (B, C, *S)`` to latents ``z (B, *grid, D)``, channels last.

    S must be whole positions; ``functional.framing.pad_to_stride`` makes it so. Samples are in
    ``signal.value_range``; an encoder that works in another range converts inside.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, *grid(S), D)`` of a signal ``(B, C, *S)``.

        Raises:
            ShapeError: ``x`` has other channels or rank, or S is not whole positions.
        """

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the latent grid of a signal with ``shape`` samples per axis.

        It is ``ceil(samples / stride)`` per axis; an encoder to a fixed number of latents
        overrides it.
        """
        return grid_shape(shape, self.stride)

    def check_signal(self, x: Tensor) -> None:
        """Raise ``ShapeError`` unless ``x`` is ``(B, C, *S)`` with S whole positions."""
        where = type(self).__name__
        axes = AXES[self.signal.kind]
        check_shape(x, f"B {self.signal.channels} {axes}", where, "Signals are channels first.")
        shape = tuple(x.shape[2:])
        if any(size % step or not size for size, step in zip(shape, self.stride, strict=True)):
            raise ShapeError(
                f"{where}: expected sample axes in multiples of {self.stride}; got {shape}. "
                "Pad with functional.framing.pad_to_stride and crop what the decoder returns."
            )


class Decoder(Backbone):
    """Maps quantized latents ``z_q (B, *grid, D)`` to a signal ``x_hat (B, C, *S)``.

    S is ``grid * stride`` samples, and ``x_hat`` is in ``signal.value_range`` without a clamp, so
    that losses see how far a sample overshoots.
    """

    @abstractmethod
    def forward(self, z_q: Tensor) -> Tensor:
        """Return the signal ``(B, C, *(grid * stride))`` of latents ``(B, *grid, D)``.

        Raises:
            ShapeError: ``z_q`` has another rank or width.
        """

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """Weight of the last layer, at which adaptive loss weights compare gradients."""

    def check_latents(self, z_q: Tensor) -> None:
        """Raise ``ShapeError`` unless ``z_q`` is ``(B, *grid, D)``."""
        axes = AXES[self.signal.kind].lower()
        hint = "Latents are channels last; did you forget to move them?"
        check_shape(z_q, f"B {axes} {self.dim}", type(self).__name__, hint)
