"""Differentiable augmentation of images, so that a discriminator cannot learn its data by heart.

Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, 2020,
https://arxiv.org/abs/2006.10738, section 4: the same random changes for real and for reconstructed
images, through which the generator's gradient flows. Differs from the paper: videos are augmented
frame by frame alike.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, unknown_name

SHIFT = 1 / 8  # largest translation, as a share of the side
HOLE = 1 / 2  # side of the square that is cut out, as a share of the side


def augment(x: Tensor, names: Sequence[str]) -> Tensor:
    """Return randomly changed images, each item by its own draw.

    Args:
        x: ``(B, C, *S)``, with at least two sample axes.
        names: of ``AUGMENTS``, in the order they are applied.
    """
    for name in names:
        x = AUGMENTS[name](x)
    return x


def check_augments(names: Sequence[str]) -> None:
    """Raise ``ConfigError`` for a name that is not one of ``AUGMENTS``."""
    if isinstance(names, str):
        raise ConfigError(
            f"augment: expected a list of {', '.join(AUGMENTS)}; got {names!r}. Write [{names}]."
        )
    for name in names:
        if name not in AUGMENTS:
            raise unknown_name("augment", name, AUGMENTS)


def color(x: Tensor) -> Tensor:
    """Return ``x (B, C, *S)`` with brightness +-0.5, saturation 0..2 and contrast 0.5..1.5."""
    x = x + _draw(x) - 0.5
    grey = x.mean(1, keepdim=True)
    x = grey + 2 * _draw(x) * (x - grey)
    middle = x.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))
    return middle + (0.5 + _draw(x)) * (x - middle)


def translation(x: Tensor) -> Tensor:
    """Return ``x (B, C, *S)`` moved by up to an eighth of its side; what comes in is 0."""
    for axis in (-2, -1):
        most = int(x.shape[axis] * SHIFT + 0.5)
        shift = torch.randint(-most, most + 1, (len(x),), device=x.device)
        x = moved(x, shift, axis)
    return x


def cutout(x: Tensor) -> Tensor:
    """Return ``x (B, C, *S)`` with a square of half its side set to 0 at a random place."""
    keep = torch.zeros((), dtype=torch.bool, device=x.device)
    for axis in (-2, -1):
        size = x.shape[axis]
        hole = int(size * HOLE + 0.5)
        centre = torch.randint(0, size + (1 - hole % 2), (len(x), 1), device=x.device)
        places = torch.arange(size, device=x.device)
        inside = (places >= centre - hole // 2) & (places < centre - hole // 2 + hole)
        keep = keep | ~(inside[:, :, None] if axis == -2 else inside[:, None, :])
    return x * keep.view(len(x), *[1] * (x.ndim - 3), *x.shape[-2:])


AUGMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def _draw(x: Tensor) -> Tensor:
    """Return one number of U(0, 1) per item, to broadcast over ``x (B, ...)``."""
    return torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device, dtype=x.dtype)


def moved(x: Tensor, shift: Tensor, axis: int) -> Tensor:
    """Return ``x`` moved along ``axis`` by ``shift (B,)`` samples, with zeros where it left."""
    size = x.shape[axis]
    source = torch.arange(size, device=x.device) - shift[:, None]  # (B, size)
    shape = [len(x)] + [1] * (x.ndim - 1)
    shape[axis] = size
    inside = ((source >= 0) & (source < size)).view(shape)
    index = source.clamp(0, size - 1).view(shape).expand_as(x)
    return torch.gather(x, axis if axis >= 0 else x.ndim + axis, index) * inside
