"""A plain vision transformer that maps squares of pixels to latents, and one that maps back."""

from collections.abc import Sequence

from torch import Tensor, nn

from tokenizers_vq.backbones.base import Decoder, Encoder
from tokenizers_vq.backbones.cnn2d_plan import rescale
from tokenizers_vq.backbones.transformer import (
    Transformer,
    init_weights,
    learned,
    patchify,
    unpatchify,
)
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec


class ViT2dEncoder(Encoder):
    """Vision transformer from pictures of one size to a grid of latents.

    A linear map of each square without a bias, learned positions, norm, pre-norm blocks, norm, and
    a linear map to the latent width.

    Args:
        dim: latent width D.
        signal: what the pixels mean; converted to ``value_range``.
        size: side of the pictures.
        patch: side of the squares, a divisor of ``size``.
        width: width of the transformer.
        layers: number of blocks.
        heads: attention heads per block.
        value_range: range of samples the network works in.
        hidden: width inside the MLPs; None for four times ``width``.

    Shapes:
        x (B, C, size, size) -> z (B, size / patch, size / patch, D)

    Raises:
        ConfigError: ``patch`` does not divide ``size``, or ``heads`` the width.
        ShapeError: ``x`` has another shape.

    Reference:
        Zhao et al., Image and Video Tokenization with Binary Spherical Quantization, 2024,
        https://arxiv.org/abs/2406.07548, section 4.1; Yu et al., Vector-quantized Image Modeling
        with Improved VQGAN, 2021, https://arxiv.org/abs/2110.04627, section 3.1.

    Example:
        >>> encoder = ViT2dEncoder(8, SignalSpec("image"), size=16, width=32, layers=1, heads=2)
        >>> encoder(torch.zeros(1, 3, 16, 16)).shape
        torch.Size([1, 2, 2, 8])
    """

    leading: tuple[int, ...] = ()  # strides of axes before rows and columns

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        size: int = 256,
        patch: int = 8,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        value_range: Sequence[float] = (-1.0, 1.0),
        hidden: int | None = None,
    ) -> None:
        side = _positions(size, patch)
        super().__init__(dim, (*self.leading, patch, patch), signal)
        self.size = (size, size)
        self.value_range = (float(value_range[0]), float(value_range[1]))
        self.embed = nn.Linear(signal.channels * patch**2, width, bias=False)
        self.positions = learned(side**2, width)
        self.transformer = Transformer(width, layers, heads, hidden)
        self.to_latent = nn.Linear(width, dim)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, h, w, D)`` of pictures ``(B, C, size, size)``."""
        self.check_signal(x)
        patches = patchify(rescale(x, self.signal.value_range, self.value_range), self.stride[0])
        grid = patches.shape[1:3]
        h = self.embed(patches.flatten(1, 2)) + self.positions  # (B, h * w, W)
        z: Tensor = self.to_latent(self.transformer(h))
        return z.reshape(z.shape[0], *grid, self.dim)


class ViT2dDecoder(Decoder):
    """Vision transformer from a grid of latents to pictures of one size.

    A linear map, learned positions, norm, pre-norm blocks, norm, and to the pixels of each square
    two linear maps with tanh between them.

    Args:
        dim: latent width D.
        signal: what the pixels mean; converted from ``value_range``.
        size: side of the pictures.
        patch: side of the squares, a divisor of ``size``.
        width: width of the transformer.
        layers: number of blocks.
        heads: attention heads per block.
        value_range: range of samples the network works in.
        head_width: width in front of the pixels; None for four times ``width``.
        hidden: width inside the MLPs; None for four times ``width``.

    Shapes:
        z_q (B, size / patch, size / patch, D) -> x_hat (B, C, size, size), not clamped

    Raises:
        ConfigError: ``patch`` does not divide ``size``, or ``heads`` the width.
        ShapeError: ``z_q`` has another shape.

    Reference:
        As ``ViT2dEncoder``.
    """

    leading: tuple[int, ...] = ()  # strides of axes before rows and columns

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        size: int = 256,
        patch: int = 8,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        value_range: Sequence[float] = (-1.0, 1.0),
        head_width: int | None = None,
        hidden: int | None = None,
    ) -> None:
        side = _positions(size, patch)
        super().__init__(dim, (*self.leading, patch, patch), signal)
        self.size = (size, size)
        self.value_range = (float(value_range[0]), float(value_range[1]))
        inner = head_width or 4 * width
        self.from_latent = nn.Linear(dim, width)
        self.positions = learned(side**2, width)
        self.transformer = Transformer(width, layers, heads, hidden)
        self.head = nn.Linear(width, inner)
        self.to_pixels = nn.Linear(inner, signal.channels * patch**2)
        init_weights(self)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last linear map."""
        return self.to_pixels.weight

    def forward(self, z_q: Tensor) -> Tensor:
        """Return pictures ``(B, C, size, size)`` of latents ``(B, h, w, D)``."""
        self.check_latents(z_q)
        grid = z_q.shape[1:3]
        h = self.from_latent(z_q.flatten(1, 2)) + self.positions
        rows: Tensor = self.to_pixels(self.head(self.transformer(h)).tanh())
        x_hat = unpatchify(rows.reshape(rows.shape[0], *grid, -1), self.stride[0])
        return rescale(x_hat, self.value_range, self.signal.value_range)

    def check_latents(self, z_q: Tensor) -> None:
        """Raise ``ShapeError`` unless ``z_q`` is ``(B, h, w, D)`` of the one size."""
        super().check_latents(z_q)
        height, width = z_q.shape[1:3]
        self.check_size((height * self.stride[0], width * self.stride[1]))


def _positions(size: int, patch: int) -> int:
    """Return the squares along a side."""
    if patch < 1 or size < 1 or size % patch:
        raise ConfigError(
            f"vit2d: expected a size that is a multiple of the patch; got size {size}, patch "
            f"{patch}. Correct the backbone config."
        )
    return size // patch
