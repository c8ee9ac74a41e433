"""The options of the image CNN: what three published families of it do differently.

``taming`` stands for VQGAN, LlamaGen, IBQ, VAR and Cosmos images, ``magvit2`` for Open-MAGVIT2,
WeTok and SimVQ, ``maskgit`` for MaskGIT, VQGAN+ and MaskBit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from tokenizers_vq.backbones.blocks import (
    Down,
    Norm,
    ResBlock,
    SpatialAttention,
    Up,
    laid_out,
    make_norm,
)
from tokenizers_vq.errors import ConfigError, unknown_name, unknown_option


@dataclass(frozen=True)
class Conventions:
    """The details in which the families differ; the defaults are those of ``taming``.

    Attributes:
        bias: biases in the residual blocks and the encoder's first convolution.
        shortcut: what the 1x1 shortcut of a block that changes width reads.
        down: how the encoder halves a level; see ``Downsample``.
        up: how the decoder doubles a level; see ``Upsample``.
        decoder_blocks: residual blocks that a decoder level has more than an encoder level.
        mid: the middle is block, attention, block; or ``"plain"``, as many blocks as a level.
        attention: levels with attention after each block, 0 the finest, -1 the coarsest.
        out_kernel: kernel of the encoder's last convolution.
        latent_kernel: kernel of the convolutions between the inner width and D; 0 for none.
        adaptive: normalise each decoder level with statistics of z_q.
        norm: normalisation of blocks.
        groups: groups of that normalisation, or fewer if a width asks for it.
        value_range: range of samples the network works in.
        highway: a linear path leads from pixels to latents and back: no swish in front of the last
            convolutions, and every residual branch begins at zero. Without normalisation this
            learns faster, since the network begins as a linear transform.
    """

    bias: bool = True
    shortcut: Literal["input", "output"] = "input"
    down: Down = "end"
    up: Up = "nearest"
    decoder_blocks: int = 1
    mid: Literal["attention", "plain"] = "attention"
    attention: tuple[int, ...] = (-1,)
    out_kernel: Literal[1, 3] = 3
    latent_kernel: Literal[0, 1, 3] = 1
    adaptive: bool = False
    norm: Norm = "group"
    groups: int = 32
    value_range: tuple[float, float] = (-1.0, 1.0)
    highway: bool = False


_PLAIN = Conventions(
    bias=False, decoder_blocks=0, mid="plain", attention=(), out_kernel=1, latent_kernel=0
)
FAMILIES = {
    "taming": Conventions(),
    "magvit2": replace(_PLAIN, down="both", up="depth_to_space", adaptive=True),
    "maskgit": replace(_PLAIN, shortcut="output", down="same", value_range=(0.0, 1.0)),
}


def conventions_of(family: str, overrides: Mapping[str, Any] | None = None) -> Conventions:
    """Return the conventions of a family with some of them replaced.

    Args:
        family: a key of ``FAMILIES``.
        overrides: fields of ``Conventions`` with their values; lists stand for tuples.

    Raises:
        ConfigError: the family, a field or a word does not exist.
    """
    if family not in FAMILIES:
        raise unknown_name("cnn2d family", family, FAMILIES)
    hints = get_type_hints(Conventions)
    given: dict[str, Any] = {}
    for field, value in dict(overrides or {}).items():
        if field not in hints:
            raise unknown_option("cnn2d family", family, field, hints)
        given[field] = _checked(field, hints[field], value)
    return replace(FAMILIES[family], **given)


def _checked(field: str, hint: Any, value: Any) -> Any:
    """Return the value of a field of ``Conventions``, or raise ``ConfigError`` if it is no such."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise unknown_name(f"cnn2d {field}", value, map(str, get_args(hint)))
        return value
    if get_origin(hint) is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(value)
    if not isinstance(hint, type) or not isinstance(value, hint):
        kind = "list" if get_origin(hint) is tuple else hint.__name__
        raise ConfigError(
            f"cnn2d {field}: expected a value of type {kind}; got {value!r}. "
            "Correct the backbone config."
        )
    return value


class Plan:
    """What the encoder and the decoder work out alike from their options.

    Args:
        dim: latent width D.
        width: channels that ``channel_mult`` multiplies.
        channel_mult: width of each level, the finest first, in units of ``width``.
        blocks: residual blocks per level.
        z_channels: inner width, see ``CNN2dEncoder``.
        patch: side of the Haar cells.
        stride: pixels per latent position.
        ways: the conventions.

    Raises:
        ConfigError: the numbers do not fit each other.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        channel_mult: Sequence[int],
        blocks: int,
        z_channels: int | None,
        patch: int,
        stride: int | None,
        ways: Conventions,
    ) -> None:
        self.widths = [width * factor for factor in channel_mult]
        self.blocks = blocks
        self.patch = patch
        self.ways = ways
        self.inner = dim if z_channels is None else z_channels
        self.stride = patch * 2 ** (len(self.widths) - 1) if stride is None else stride
        self.downs = (self.stride // patch).bit_length() - 1
        levels = len(self.widths)
        self.attention = {level % levels for level in ways.attention if -levels <= level < levels}
        self._check(dim)

    def block(self, cin: int, cout: int) -> ResBlock:
        """Return a residual block in the plan's conventions."""
        ways = self.ways
        block = ResBlock(cin, cout, ways.bias, ways.shortcut, ways.norm, ways.groups)
        if ways.highway:
            nn.init.zeros_(block.conv2.weight)
        return block

    def level(self, cin: int, level: int, count: int, resample: nn.Module | None) -> "Level":
        """Return a level of ``count`` blocks, with attention if the plan puts it there."""
        width = self.widths[level]
        block = [self.block(cin if j == 0 else width, width) for j in range(count)]
        attended = count if level in self.attention else 0
        attn = [SpatialAttention(width, self.ways.norm, self.ways.groups) for _ in range(attended)]
        return Level(block, attn, resample)

    def middle(self) -> nn.Sequential:
        """Return the middle blocks, at the coarsest level."""
        width = self.widths[-1]
        if self.ways.mid == "plain":
            return nn.Sequential(*(self.block(width, width) for _ in range(self.blocks)))
        attention = SpatialAttention(width, self.ways.norm, self.ways.groups)
        return nn.Sequential(self.block(width, width), attention, self.block(width, width))

    def norm(self, width: int) -> nn.Module:
        """Return the last normalisation of the encoder or the decoder."""
        return make_norm(self.ways.norm, width, self.ways.groups)

    def activation(self) -> nn.Module:
        """Return what stands in front of the last convolution of the encoder or the decoder."""
        return nn.Identity() if self.ways.highway else nn.SiLU()

    def latent_conv(self, cin: int, cout: int) -> nn.Module:
        """Return the convolution between the inner width and D, or nothing."""
        kernel = self.ways.latent_kernel
        return nn.Conv2d(cin, cout, kernel, padding=kernel // 2) if kernel else nn.Identity()

    def _check(self, dim: int) -> None:
        levels = len(self.widths)
        if not levels or min(self.widths) < 1 or self.blocks < 1:
            raise ConfigError(
                f"cnn2d: expected levels, widths and blocks of at least 1; got widths "
                f"{tuple(self.widths)} and {self.blocks} blocks. Correct the backbone config."
            )
        power = self.patch >= 1 and self.patch.bit_count() == 1
        if not power or self.patch * 2**self.downs != self.stride or self.downs > levels:
            raise ConfigError(
                f"cnn2d: expected a patch that is a power of two, and a stride of patch times at "
                f"most 2**{levels}; got patch {self.patch}, stride {self.stride}. "
                "Choose a power of two, or add a level to channel_mult."
            )
        if any(not -levels <= level < levels for level in self.ways.attention):
            raise ConfigError(
                f"cnn2d: expected attention at levels {-levels}..{levels - 1}; got "
                f"{self.ways.attention}. Level 0 is the finest."
            )
        if not self.ways.latent_kernel and self.inner != dim:
            raise ConfigError(
                f"cnn2d: expected z_channels {dim}, the latent width, because these conventions "
                f"have no latent convolution; got {self.inner}. Leave z_channels out."
            )


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention if the level has it.

    Args:
        block: the residual blocks.
        attn: an attention block for each of them, or none at all.
        resample: what leads to the next level.

    Shapes:
        x (B, C, H, W) -> (B, C', H', W') as ``resample`` leaves it
    """

    def __init__(
        self,
        block: Sequence[nn.Module],
        attn: Sequence[nn.Module],
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(block)
        self.attn = nn.ModuleList(attn)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        """Return the level's output, resampled."""
        x = laid_out(x)
        for j, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[j](x)
        return x if self.resample is None else self.resample(x)


def rescale(x: Tensor, source: tuple[float, float], target: tuple[float, float]) -> Tensor:
    """Map samples from the range ``source`` to the range ``target`` by an affine map."""
    if tuple(source) == tuple(target):
        return x
    scale = (target[1] - target[0]) / (source[1] - source[0])
    return x * scale + (target[0] - source[0] * scale)
