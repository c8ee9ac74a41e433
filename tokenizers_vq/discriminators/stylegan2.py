"""StyleGAN2's residual discriminator, as BSQ-ViT trains with.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2020,
https://arxiv.org/abs/1912.04958, figure 7 and appendix B; with the channels of
Karras et al., Training GANs with Limited Data, 2020, https://arxiv.org/abs/2006.06676.
Differs from the papers: float32 only, no conditioning.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, linear

from tokenizers_vq.discriminators.base import Discriminator
from tokenizers_vq.errors import ConfigError, ShapeError, check_shape

TAPS = (1.0, 3.0, 3.0, 1.0)
SMALLEST = 4
HALF = math.sqrt(0.5)  # both branches of a residual sum


class StyleGAN2(Discriminator):
    """One logit per image: residual blocks down to 4 x 4, minibatch deviation, two linear layers.

    28,864,129 parameters for 256 x 256 images.

    Args:
        channels: of the image.
        size: pixels per side, a power of two from 8.
        base: channels at a resolution are ``base / resolution``, but at most ``width``.
        width: most channels.
        group: items whose deviation is measured together; the largest divisor of the batch up to
            this.

    Shapes:
        x (B, channels, size, size) -> (B, 1, 1, 1)

    Raises:
        ConfigError: ``size`` is not a power of two from 8.
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 256,
        base: int = 32768,
        width: int = 512,
        group: int = 4,
    ):
        super().__init__()
        if size < 2 * SMALLEST or size & (size - 1):
            raise ConfigError(
                f"StyleGAN2: expected a size of a power of two from {2 * SMALLEST}; got {size}. "
                "Set discriminator.size to the pixels per side of the training images."
            )
        self.channels, self.size, self.group = channels, size, group
        sizes = [size >> i for i in range(size.bit_length() - SMALLEST.bit_length() + 1)]
        widths = [min(base // side, width) for side in sizes]
        self.from_image = Layer(channels, widths[0], 1)
        self.blocks = nn.ModuleList(Block(wide, narrow) for wide, narrow in pairwise(widths))
        last = widths[-1]
        self.conv = Layer(last + 1, last, 3)
        self.hidden = Layer(last * SMALLEST**2, last, 0)
        self.leave = Layer(last, 1, 0, active=False)

    def check_signal(self, x: Tensor) -> None:
        """Raise ``ShapeError`` unless ``x`` is ``(B, channels, size, size)``."""
        check_shape(x, f"B {self.channels} H W", "StyleGAN2", "Images are channels first.")
        if tuple(x.shape[2:]) != (self.size, self.size):
            raise ShapeError(
                f"StyleGAN2: expected images of {self.size} x {self.size} pixels; got "
                f"{x.shape[2]} x {x.shape[3]}. Set discriminator.size, or crop the images."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(B, 1, 1, 1)`` of images ``(B, channels, size, size)``.

        Raises:
            ShapeError: as ``check_signal``.
        """
        self.check_signal(x)
        x = self.from_image(x)
        for block in self.blocks:
            x = block(x)
        x = self.conv(torch.cat([x, deviation(x, self.group)], 1))
        logits: Tensor = self.leave(self.hidden(x.flatten(1)))
        return logits[:, :, None, None]


class Layer(nn.Module):
    """A convolution, or a linear layer for ``side`` 0, with weights scaled at run time.

    Weights are N(0, 1) and divided by sqrt(fan in) (equalised learning rate, Karras et al. 2018,
    https://arxiv.org/abs/1710.10196, section 4.1); then a leaky ReLU of slope 0.2, times sqrt(2).

    Args:
        inputs: channels in.
        outputs: channels out.
        side: of the kernel; 0 for a linear layer.
        bias: whether there is one.
        down: blur with [1, 3, 3, 1] and keep every second sample.
        active: whether the leaky ReLU follows.
    """

    kernel: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        side: int,
        *,
        bias: bool = True,
        down: bool = False,
        active: bool = True,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *[side] * 2 * bool(side)))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.side, self.down, self.active = side, down, active
        self.scale = 1 / math.sqrt(inputs * max(side, 1) ** 2)
        taps = torch.tensor(TAPS)
        kernel = torch.outer(taps, taps)
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None], persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Return ``gain`` times the layer of ``x (B, inputs, H, W)``, or ``(B, inputs)``."""
        weight = (self.weight * self.scale).to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if not self.side:
            x = linear(x, weight, bias)
        elif self.down:
            # the filter is 4 wide: with these zeros a kernel of any odd side halves the sides
            kernel = self.kernel.to(x.dtype).expand(x.shape[1], -1, -1, -1)
            padding = 1 + self.side // 2
            stride = 2 if self.side == 1 else 1
            x = conv2d(x, kernel, padding=padding, stride=stride, groups=x.shape[1])
            x = conv2d(x, weight, bias, stride=3 - stride)
        else:
            x = conv2d(x, weight, bias, padding=self.side // 2)
        return leaky_relu(x, 0.2) * (math.sqrt(2) * gain) if self.active else x * gain


class Block(nn.Module):
    """Two convolutions beside a skip connection; half the side.

    Args:
        inputs: channels in.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = Layer(inputs, inputs, 3)
        self.second = Layer(inputs, outputs, 3, down=True)
        self.skip = Layer(inputs, outputs, 1, bias=False, down=True, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, outputs, H / 2, W / 2)`` of ``x (B, inputs, H, W)``."""
        made: Tensor = self.skip(x, HALF) + self.second(self.first(x), HALF)
        return made


def deviation(x: Tensor, group: int) -> Tensor:
    """Return the mean standard deviation over items, as a map ``(B, 1, H, W)``.

    Karras et al., Progressive Growing of GANs, 2018, https://arxiv.org/abs/1710.10196, section 3.

    Args:
        x: ``(B, C, H, W)``.
        group: most items that are compared; item i is compared with those B / group apart.
    """
    count = next(size for size in range(min(group, len(x)), 0, -1) if len(x) % size == 0)
    spread = x.float().reshape(count, -1, *x.shape[1:])
    spread = (spread.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # (B / count,)
    return spread.to(x.dtype).repeat(count)[:, None, None, None].expand(-1, 1, *x.shape[2:])
