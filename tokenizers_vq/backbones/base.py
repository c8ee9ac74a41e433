"""What every encoder and decoder promises: the shapes between a signal and its latents."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, ShapeError, check_shape
from tokenizers_vq.functional.framing import (
    crop,
    grid_shape,
    pad_to_stride,
    padded_shape,
    samples_of,
)
from tokenizers_vq.functional.segments import Segments, Windows
from tokenizers_vq.types import SignalSpec

# Names of the sample axes in error messages.
AXES = {
    "image": "H W", "video": "T H W", "audio": "T", "volume": "X Y Z", "motion": "T",
    "protein": "T", "points": "N",
}  # fmt: skip


class Backbone(nn.Module, ABC):
    """What an encoder and its decoder have in common.

    Args:
        dim: latent width D, the width the quantizer sees.
        stride: samples per latent position, one per sample axis.
        signal: what the numbers of the signal mean.

    Attributes:
        first: samples of the first position per axis where it has fewer than the others, as the
            first frame of a causal video network; None where all have ``stride``.
        size: samples per axis of the only signal it takes, whole positions; None for any.
        any_length: an encoder that completes the last position of a signal by itself, so that
            signals are not padded for it.
        windows: in which it looks at long signals, in samples; None for all at once.

    Raises:
        ConfigError: ``dim`` or a stride is below 1, or the signal has another number of axes.
    """

    dim: int
    stride: tuple[int, ...]
    signal: SignalSpec
    first: tuple[int, ...] | None = None
    size: tuple[int, ...] | None = None
    any_length: bool = False
    windows: Windows | None = None

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

    @property
    def latent_axes(self) -> int:
        """Number of axes of the latent grid; 1 for a sequence of tokens without a place."""
        return self.signal.axes

    def samples(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the samples per axis of a signal that fills ``grid``."""
        return samples_of(grid, self.stride, self.first)

    def check_size(self, shape: Sequence[int]) -> None:
        """Raise ``ShapeError`` unless a signal of ``shape`` samples, padded, has the one size."""
        if self.size is not None and padded_shape(shape, self.stride, self.first) != self.size:
            raise ShapeError(
                f"{type(self).__name__}: expected a signal of {self.size} samples; got "
                f"{tuple(shape)}. Resize it: this backbone has learned positions for one size."
            )


class Encoder(Backbone):
    """Maps a signal ``x (B, C, *S)`` to latents ``z (B, *grid, D)``, channels last.

    S must be whole positions; ``functional.framing.pad_to_stride`` makes it so. Samples are in
    ``signal.value_range``; an encoder that works in another range converts inside.

    Attributes:
        segments: how longer signals are cut for it, and their loudness; None for neither.
    """

    segments: Segments | None = None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, *grid(S), D)`` of a signal ``(B, C, *S)``.

        Raises:
            ShapeError: ``x`` has other channels or rank, or S is not whole positions.
        """

    def pieces(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the latents of ``x (B, C, *S)`` window by window; together they are all of them.

        Raises:
            ShapeError: as ``forward``.
        """
        yield self(x)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the latent grid of a signal with ``shape`` samples per axis.

        It is ``ceil(samples / stride)`` per axis, or ``1 + ceil((samples - first) / stride)``; of
        segments, what they have together.

        Raises:
            ShapeError: the encoder takes one size, and this is another.
        """
        self.check_size(shape)
        if self.segments is None or any(size < 1 for size in shape):
            return grid_shape(shape, self.stride, self.first)
        spans = self.segments.spans(shape[0])
        return (sum(-(-(end - start) // self.stride[0]) for start, end in spans),)

    def frame(self, x: Tensor) -> Tensor:
        """Return ``x (B, C, *S)`` padded to what ``forward`` takes; the decoded signal is cropped.

        Raises:
            ShapeError: another rank, or an empty axis.
        """
        if self.any_length:
            self.check_signal(x)
            return x
        return pad_to_stride(x, self.stride, self.first)

    def check_signal(self, x: Tensor) -> None:
        """Raise ``ShapeError`` unless ``x`` is ``(B, C, *S)`` with S whole positions."""
        where = type(self).__name__
        axes = AXES[self.signal.kind]
        check_shape(x, f"B {self.signal.channels} {axes}", where, "Signals are channels first.")
        shape = tuple(x.shape[2:])
        whole = all(shape) and (
            self.any_length or padded_shape(shape, self.stride, self.first) == shape
        )
        if not whole:
            after = "" if self.first is None else f" after the first {self.first}"
            raise ShapeError(
                f"{where}: expected sample axes in multiples of {self.stride}{after}; got {shape}. "
                "Pad with functional.framing.pad_to_stride and crop what the decoder returns."
            )
        self.check_size(shape)


class Decoder(Backbone):
    """Maps quantized latents ``z_q (B, *grid, D)`` to a signal ``x_hat (B, C, *S)``.

    S is ``samples(grid)``, or ``size``; ``x_hat`` is in ``signal.value_range`` without a
    clamp, so that losses see how far a sample overshoots.

    Attributes:
        options: keyword arguments of ``forward`` beyond the latents, with one sentence each. All
            have defaults.
    """

    options: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def forward(self, z_q: Tensor) -> Tensor:
        """Return the signal ``(B, C, *(grid * stride))`` of latents ``(B, *grid, D)``.

        Raises:
            ShapeError: ``z_q`` has another rank or width.
        """

    def reconstruct(self, z_q: Tensor, x: Tensor) -> Tensor:
        """Return the reconstruction ``(B, C, *S)`` of ``x (B, C, *S)``, whose latents are given."""
        return self.cropped(self(z_q), tuple(x.shape[2:]))

    def cropped(self, x_hat: Tensor, shape: Sequence[int]) -> Tensor:
        """Return what belongs to a signal of ``shape`` samples of what ``forward`` returned."""
        return crop(x_hat, shape)

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """Weight of the last layer, at which adaptive loss weights compare gradients."""

    def check_latents(self, z_q: Tensor) -> None:
        """Raise ``ShapeError`` unless ``z_q`` is ``(B, *grid, D)``."""
        axes = AXES[self.signal.kind].lower()
        hint = "Latents are channels last; did you forget to move them?"
        check_shape(z_q, f"B {axes} {self.dim}", type(self).__name__, hint)


class TokenEncoder(Encoder):
    """An encoder to a sequence of at most N latents that have no place: ``z (B, n, D)``.

    Attributes:
        counts: the numbers of latents it can give, ascending; the last one is N.
        targets_error: whether ``allocate`` chooses the latents for a wished error.
    """

    counts: tuple[int, ...]
    targets_error: bool = False

    @property
    def num_tokens(self) -> int:
        """The largest number of latents, N."""
        return self.counts[-1]

    @property
    def latent_axes(self) -> int:
        """One: the sequence."""
        return 1

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return ``(N,)``.

        Raises:
            ShapeError: a signal of ``shape`` samples is not of the size it takes.
        """
        self.check_size(shape)
        return (self.num_tokens,)

    @abstractmethod
    def forward(self, x: Tensor, num_tokens: int | None = None) -> Tensor:
        """Return latents ``(B, n, D)`` of signals ``(B, C, *S)``.

        Args:
            x: ``(B, C, *S)``.
            num_tokens: n, one of ``counts``; None for N.

        Raises:
            ShapeError: ``x`` has another shape, or there is no such number.
        """

    def allocate(
        self, x: Tensor, target_error: float | None = None, num_tokens: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return latents ``(B, n, D)`` and which of them are needed, ``(B, n)`` bool.

        Args:
            x: ``(B, C, *S)``.
            target_error: wished mean absolute error, in units of the signal's range; None for the
                encoder's own.
            num_tokens: n, at most so many; None for N.

        Raises:
            ConfigError: the encoder was not trained to choose; see ``targets_error``.
        """
        raise ConfigError(
            f"{type(self).__name__}: expected an encoder that chooses its tokens for an error; "
            "got one that gives a number of them. Use encode(x, num_tokens=...)."
        )

    def check_count(self, num_tokens: int | None) -> int:
        """Return the number of latents asked for, N for None.

        Raises:
            ShapeError: the encoder cannot give that many.
        """
        if num_tokens is None:
            return self.num_tokens
        if num_tokens not in self.counts:
            raise ShapeError(
                f"{type(self).__name__}: expected num_tokens of {_ranges(self.counts)}; got "
                f"{num_tokens}. Choose one of these."
            )
        return num_tokens


class TokenDecoder(Decoder):
    """A decoder of sequences ``z_q (B, n, D)`` to signals of one size.

    Dropping tokens in training, so that prefixes decode, happens in ``forward``.

    Attributes:
        counts: the numbers of latents n that it takes, ascending.
    """

    counts: tuple[int, ...]

    @property
    def latent_axes(self) -> int:
        """One: the sequence."""
        return 1

    @abstractmethod
    def forward(self, z_q: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        """Return signals ``(B, C, *size)`` of latents ``(B, n, D)``.

        Args:
            z_q: ``(B, n, D)``.
            mask: ``(B, n)`` bool, True at latents that are there; None for all.
            **options: those of ``options``.

        Raises:
            ShapeError: ``z_q`` has another rank or width, or n is not one of ``counts``.
        """

    def check_latents(self, z_q: Tensor) -> None:
        """Raise ``ShapeError`` unless ``z_q`` is ``(B, n, D)`` with n of ``counts``."""
        where = type(self).__name__
        check_shape(z_q, f"B N {self.dim}", where, "Latents are channels last, one row per token.")
        if z_q.shape[1] not in self.counts:
            raise ShapeError(
                f"{where}: expected {_ranges(self.counts)} tokens; got {z_q.shape[1]}. "
                "Decode what encode gave, or a prefix of that length."
            )


def _ranges(counts: Sequence[int]) -> str:
    """Return ascending numbers as text: 1..256, 32 64 96, 128."""
    if len(counts) > 2 and counts[-1] - counts[0] == len(counts) - 1:
        return f"{counts[0]}..{counts[-1]}"
    return " ".join(map(str, counts))
