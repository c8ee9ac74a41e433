"""A causal video tokenizer of state-space mixers, with pooling of tokens between its stages.

What is published of MambaVideo is that patches go through spatial-temporal Mamba modules and token
pooling modules, that the decoder mirrors it, and that its quantizer splits channels. It has no
public code: the order of scans, the linear pooling, Mamba-2, widths and all conventions here are
ours, and so are all numbers. Mamba video tokenizers of this kind and channel-split quantization
(heads ``csq`` and ``csq_video``) are described by published patent applications, US 2026/0087351
and US 2026/0089325.

Reference:
    Argaw et al., MambaVideo for Discrete Video Tokenization with Channel-Split Quantization, 2025,
    https://arxiv.org/abs/2507.04559 (its abstract; see above).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tokenizers_vq.backbones.causal_video import (
    CausalPool,
    CausalUnpool,
    VideoChain,
    VideoDecoder,
    VideoEncoder,
)
from tokenizers_vq.backbones.mamba import Mamba1Mixer, Mamba2Mixer
from tokenizers_vq.backbones.streaming import State
from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.types import SignalSpec

MIXERS: dict[str, Any] = {"mamba1": Mamba1Mixer, "mamba2": Mamba2Mixer}


class MambaVideoEncoder(VideoEncoder):
    """Pooling and mixing by stages: both directions inside a frame, the past only between frames.

    A change of frame t never changes a latent frame that ends before it.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        widths: channels of the stages, the finest first.
        pools: frames, rows and columns that the beginning of each stage makes one token of.
        depths: blocks of each stage.
        mixer: ``kind``, ``mamba2`` or ``mamba1``, and the options of that mixer.
        mlp: width inside the MLPs divided by the stage's.

    Shapes:
        x (B, C, 1 + m f_t, H, W) -> z (B, 1 + m, H / f_h, W / f_w, D)

    Raises:
        ConfigError: the lists are of other lengths, or an option does not exist.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        widths: Sequence[int],
        pools: Sequence[Sequence[int]],
        depths: Sequence[int],
        mixer: Mapping[str, Any] | None = None,
        mlp: int = 4,
    ) -> None:
        cells = _cells(widths, pools, depths)
        super().__init__(dim, signal, cells)
        layers: list[nn.Module] = []
        before, turned = signal.channels, False
        for width, pool, depth in zip(widths, cells, depths, strict=True):
            layers.append(CausalPool((before, width), pool))
            for _ in range(depth):
                layers.append(Block(width, mixer, mlp, turned))
                turned = not turned
            before = width
        self.layers = VideoChain(*layers, nn.LayerNorm(before), nn.Linear(before, dim))


class MambaVideoDecoder(VideoDecoder):
    """The mirror of ``MambaVideoEncoder``: mixing, then one token becomes many, by stages.

    Args:
        dim: latent width D.
        signal: what the samples mean.
        widths: channels of the stages, the finest first.
        pools: frames, rows and columns that the end of each stage makes of one token.
        depths: blocks of each stage.
        mixer: ``kind``, ``mamba2`` or ``mamba1``, and the options of that mixer.
        mlp: width inside the MLPs divided by the stage's.

    Shapes:
        z_q (B, 1 + m, h, w, D) -> x_hat (B, C, 1 + m f_t, h f_h, w f_w)

    Raises:
        ConfigError: the lists are of other lengths, or an option does not exist.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        widths: Sequence[int],
        pools: Sequence[Sequence[int]],
        depths: Sequence[int],
        mixer: Mapping[str, Any] | None = None,
        mlp: int = 4,
    ) -> None:
        cells = _cells(widths, pools, depths)
        super().__init__(dim, signal, cells)
        layers: list[nn.Module] = [nn.Linear(dim, widths[-1])]
        turned = False
        targets = (signal.channels, *widths[:-1])
        for width, target, pool, depth in reversed(
            list(zip(widths, targets, cells, depths, strict=True))
        ):
            for _ in range(depth):
                layers.append(Block(width, mixer, mlp, turned))
                turned = not turned
            layers += [nn.LayerNorm(width), CausalUnpool((width, target), pool)]
        self.layers = VideoChain(*layers)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the map to samples."""
        last: Any = self.layers
        weight: Tensor = last[-1].linear.weight
        return weight


class Block(nn.Module):
    """Mix inside each frame, then along time at each place, then channels; each beside a shortcut.

    Args:
        width: channels W.
        mixer: ``kind`` and options.
        mlp: width inside the MLP divided by W.
        turned: scan frames by columns, not by rows.

    Shapes:
        x (B, T, H, W', W) -> the same
    """

    def __init__(self, width: int, mixer: Mapping[str, Any] | None, mlp: int, turned: bool) -> None:
        super().__init__()
        self.turned = turned
        self.space_norm = nn.LayerNorm(width)
        self.space = _mixer(width, mixer, bidirectional=True)
        self.time_norm = nn.LayerNorm(width)
        self.time = _mixer(width, mixer, bidirectional=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, mlp * width),
            nn.GELU(),
            nn.Linear(mlp * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed tokens."""
        return self.step(x, None, True)[0]

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the mixed tokens of the next frames, and the state of every place."""
        if not x.shape[1]:
            return x, state
        batch, frames, height, width, channels = x.shape
        y = self.space_norm(x)
        y = y.transpose(2, 3) if self.turned else y
        y = self.space(y.reshape(batch * frames, height * width, channels))
        sides = (width, height) if self.turned else (height, width)
        y = y.reshape(batch, frames, *sides, channels)
        x = x + (y.transpose(2, 3) if self.turned else y)
        y = self.time_norm(x).permute(0, 2, 3, 1, 4).reshape(-1, frames, channels)
        y, state = self.time.advance(y, state)
        y = y.reshape(batch, height, width, frames, channels).permute(0, 3, 1, 2, 4)
        x = x + y
        mixed: Tensor = x + self.mlp(x)
        return mixed, state


def _mixer(width: int, config: Mapping[str, Any] | None, *, bidirectional: bool) -> Any:
    options = dict(config or {})
    name = options.pop("kind", "mamba2")
    if name not in MIXERS:
        raise unknown_name("mamba_video mixer", name, MIXERS)
    return MIXERS[name](width, bidirectional=bidirectional, **options)


def _cells(
    widths: Sequence[int], pools: Sequence[Sequence[int]], depths: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Return the pools as tuples.

    Raises:
        ConfigError: there is not one of each per stage.
    """
    if not len(widths) == len(pools) == len(depths):
        raise ConfigError(
            "mamba_video: expected one width, pool and depth per stage; got "
            f"{len(widths)}, {len(pools)} and {len(depths)}. Correct the backbone config."
        )
    return [tuple(pool) for pool in pools]  # type: ignore[misc] # three numbers: total_stride
