"""A patch discriminator that blurs before it subsamples, as trained in MaskBit and TiTok.

Weber et al., MaskBit, 2024, https://arxiv.org/abs/2409.16211, section 3 and appendix; the blur is
Zhang, Making Convolutional Networks Shift-Invariant Again, 2019, https://arxiv.org/abs/1904.11486,
with the binomial filter [1, 3, 3, 1]. Differs from the paper: none with its defaults; the copies in
Open-MAGVIT2 leave the max pooling out (``map_size: null``).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from tokenizers_vq.discriminators.base import Discriminator
from tokenizers_vq.errors import ConfigError, ShapeError, check_shape

TAPS = (1.0, 3.0, 3.0, 1.0)
GROUPS = 32


class BlurPatchGAN(Discriminator):
    """Logits on a fixed map: conv 5x5, stages of conv 3x3 and blur, max pooling, two convolutions.

    7,431,297 parameters with the defaults (MaskBit), 1,909,889 with three stages (TiTok).

    Args:
        channels: of the image.
        width: channels of the first stage; they double per stage from the second on.
        stages: each halves the side.
        map_size: logits per side, by adaptive max pooling; null for as many as there are.
        groups: of the group normalisation; they divide ``width``.

    Shapes:
        x (B, channels, H, W) -> (B, 1, map_size, map_size)

    Raises:
        ConfigError: fewer than one stage, or a width that the groups do not divide.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 128,
        stages: int = 4,
        map_size: int | None = 16,
        groups: int = GROUPS,
    ):
        super().__init__()
        if stages < 1 or width % groups or (map_size is not None and map_size < 1):
            raise ConfigError(
                "BlurPatchGAN: expected at least 1 stage, a width that is a multiple of "
                f"{groups} groups and map_size from 1; got stages {stages}, width {width}, "
                f"map_size {map_size}. Correct the discriminator config."
            )
        self.channels, self.smallest = channels, 2**stages
        widths = [width, *(width * 2**i for i in range(stages))]
        self.enter = nn.Sequential(nn.Conv2d(channels, width, 5, padding=2), nn.LeakyReLU(0.1))
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(widths[i], widths[i + 1], 3, padding=1),
                Blur(),
                nn.GroupNorm(groups, widths[i + 1]),
                nn.LeakyReLU(0.1),
            )
            for i in range(stages)
        )
        self.pool = nn.Identity() if map_size is None else nn.AdaptiveMaxPool2d(map_size)
        last = widths[-1]
        self.leave = nn.Sequential(
            nn.Conv2d(last, last, 1), nn.LeakyReLU(0.1), nn.Conv2d(last, 1, 5, padding=2)
        )

    def check_signal(self, x: Tensor) -> None:
        """Raise unless images ``(B, channels, H, W)`` leave one position after the stages.

        Raises:
            ShapeError: another rank or number of channels, or too few pixels.
        """
        check_shape(x, f"B {self.channels} H W", "BlurPatchGAN", "Images are channels first.")
        if min(x.shape[2:]) < self.smallest:
            raise ShapeError(
                f"BlurPatchGAN: expected images of at least {self.smallest} x {self.smallest} "
                f"pixels; got {x.shape[2]} x {x.shape[3]}. Use larger images, or fewer stages."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(B, 1, h, w)`` of images ``(B, channels, H, W)``.

        Raises:
            ShapeError: as ``check_signal``.
        """
        self.check_signal(x)
        x = self.enter(x)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.leave(self.pool(x))
        return logits


class Blur(nn.Module):
    """Low-pass filter per channel, and every second sample of it.

    Padding is TensorFlow's "SAME": zeros, so that the result has ``ceil(n / 2)`` samples per side.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(TAPS)
        kernel = torch.outer(taps, taps)
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, ceil(H / 2), ceil(W / 2))`` of ``x (B, C, H, W)``."""
        sides: list[int] = []
        for size in (x.shape[-1], x.shape[-2]):  # torch pads the last axis first
            total = max((math.ceil(size / 2) - 1) * 2 + len(TAPS) - size, 0)
            sides += [total // 2, total - total // 2]
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        return conv2d(pad(x, sides), kernel, stride=2, groups=x.shape[1])
