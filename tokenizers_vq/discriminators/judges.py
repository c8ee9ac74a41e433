"""What the discriminators of sound share: several judges side by side, and their layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad
from torch.nn.utils.parametrizations import weight_norm

from tokenizers_vq.discriminators.base import Discriminator
from tokenizers_vq.errors import ShapeError, check_shape
from tokenizers_vq.functional.judgement import Judgement


class Judge(nn.Module):
    """A stack of convolutions with leaky rectifiers that shows what each layer sees.

    Args:
        convs: the layers.
        post: the last layer, to one channel.
        slope: of the rectifiers below 0.
        skip: layers, from the first, that are not shown.
    """

    def __init__(self, convs: Sequence[nn.Module], post: nn.Module, slope: float, skip: int = 0):
        super().__init__()
        self.convs, self.post = nn.ModuleList(convs), post
        self.slope, self.skip = slope, skip

    def view(self, x: Tensor) -> Tensor:
        """Return what the first layer sees of ``x (B, 1, T)``."""
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return logits ``(B, 1, *map)`` of ``x (B, 1, T)``, and the features of the layers."""
        x = self.view(x)
        features = []
        for conv in self.convs:
            x = leaky_relu(conv(x), self.slope)
            features.append(x)
        return self.post(x), tuple(features[self.skip :])


class Panel(Discriminator):
    """Judges side by side, on each channel of a sound by itself.

    Args:
        judges: each maps ``(B, 1, T)`` to logits and features.
        shortest: samples that every judge needs.
        average: each of n judges counts 1 / n, else 1.
        level: take the mean off each item and scale its peak to 0.8 first, as DAC does.
    """

    def __init__(
        self, judges: Sequence[nn.Module], shortest: int, *, average: bool, level: bool = False
    ):
        super().__init__()
        self.judges = nn.ModuleList(judges)
        self.shortest, self.level = shortest, level
        self.weight = 1 / len(self.judges) if average else 1.0

    def check_signal(self, x: Tensor) -> None:
        """Raise unless ``x (B, C, T)`` is long enough for every judge.

        Raises:
            ShapeError: another rank, or too few samples.
        """
        where = type(self).__name__
        check_shape(x, "B C T", where, "It judges sound.")
        if x.shape[-1] < self.shortest:
            raise ShapeError(
                f"{where}: expected at least {self.shortest} samples; got {x.shape[-1]}. "
                "Use longer crops."
            )

    def judge(self, x: Tensor) -> list[Judgement]:
        """Return what each judge says about ``x (B, C, T)``; channels are items.

        Raises:
            ShapeError: as ``check_signal``.
        """
        self.check_signal(x)
        x = x.flatten(0, 1)[:, None]  # (B * C, 1, T)
        if self.level:
            x = x - x.mean(-1, keepdim=True)
            x = 0.8 * x / (x.abs().amax(-1, keepdim=True) + 1e-9)
        found = []
        for judge in self.judges:
            logits, features = judge(x)
            found.append(Judgement(logits, features, self.weight))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of all judges in a row, ``(B * C, 1, N)``, for ``x (B, C, T)``."""
        return torch.cat([one.logits.flatten(2) for one in self.judge(x)], dim=2)


def conv2d(
    c_in: int,
    c_out: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Module:
    """Return a weight-normed convolution with ``kernel // 2`` zeros, dilated, on each side.

    Args:
        c_in: channels in.
        c_out: channels out.
        kernel: its two sides.
        stride: of both axes.
        dilation: of both axes.
    """
    padding = (kernel[0] // 2 * dilation[0], kernel[1] // 2 * dilation[1])
    conv: nn.Module = weight_norm(nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation))
    return conv


def stft(
    x: Tensor,
    n_fft: int,
    hop: int,
    *,
    window: str = "hann",
    frames: str = "center",
    normalized: bool = False,
) -> Tensor:
    """Return the complex short-time spectrum ``(B, bins, frames)`` of ``x (B, 1, T)``.

    Args:
        x: the sound.
        n_fft: samples of a frame and of its window.
        hop: samples between frames.
        window: ``hann`` or ``ones``.
        frames: ``center`` (around each multiple of the hop, ends reflected), ``valid`` (inside
            the sound), ``stride`` (exactly ``ceil(T / hop)`` frames, in the middle of their hops).
        normalized: divide by the norm of the window.
    """
    make = torch.hann_window if window == "hann" else torch.ones
    weights = make(n_fft, device=x.device, dtype=torch.float32)
    x = x.float()
    if frames == "stride":
        side, right = (n_fft - hop) // 2, -x.shape[-1] % hop
        x = pad(x, (side, side + right), mode="reflect")
    with torch.autocast(x.device.type, enabled=False):
        z = torch.stft(
            x[:, 0],
            n_fft,
            hop,
            window=weights,
            center=frames != "valid",
            return_complex=True,
        )
    if frames == "stride":
        z = z[..., 2:-2]  # frames that hold nothing but padding of the padding
    return z / weights.square().sum().sqrt() if normalized else z


def as_channels(z: Tensor) -> Tensor:
    """Return the complex ``z (B, bins, frames)`` as real ``(B, 2, frames, bins)``."""
    return torch.view_as_real(z).permute(0, 3, 2, 1)
