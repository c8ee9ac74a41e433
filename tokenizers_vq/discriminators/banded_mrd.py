"""The complex, banded multi-resolution discriminator of DAC.

Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, 2023,
https://arxiv.org/abs/2306.06546, section 3.3.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from tokenizers_vq.discriminators.judges import Panel, as_channels, conv2d, stft

EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
STRIDES = (1, 2, 2, 2)


class BandedJudge(nn.Module):
    """Judges real and imaginary parts of one spectrum; each band has layers of its own.

    Args:
        n_fft: samples of a frame; the hop is a quarter.
        width: channels of each layer.
        edges: of the bands, as shares of the bins.
        window: ``hann`` or ``ones``.
        frames: ``stride`` or ``center``, see ``judges.stft``.
    """

    def __init__(self, n_fft: int, width: int, edges: Sequence[float], window: str, frames: str):
        super().__init__()
        self.n_fft, self.window, self.frames = n_fft, window, frames
        bins = n_fft // 2 + 1
        self.bands = [(int(a * bins), int(b * bins)) for a, b in pairwise(edges)]
        self.stacks = nn.ModuleList(_stack(width) for _ in self.bands)
        self.post = conv2d(width, 1, (3, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return logits ``(B, 1, frames, n)`` of ``x (B, 1, T)``, and features by band."""
        z = stft(x, self.n_fft, self.n_fft // 4, window=self.window, frames=self.frames)
        z = as_channels(z)
        features: list[Tensor] = []
        ends = []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            band = z[..., low:high]
            for conv in stack:  # type: ignore[attr-defined]  # a ModuleList
                band = leaky_relu(conv(band), 0.1)
                features.append(band)
            ends.append(band)
        return self.post(torch.cat(ends, dim=-1)), tuple(features)


class BandedMRD(Panel):
    """One judge per resolution, on complex spectra in five bands.

    Args:
        n_ffts: samples of a frame, by judge.
        width: channels of each layer.
        edges: of the bands, as shares of the bins.
        window: ``hann``, or ``ones`` as in WavTokenizer.
        frames: ``stride``, or ``center`` as in WavTokenizer.
        average: each judge counts 1 / n, else 1.
        level: take off the mean and scale the peak to 0.8 first.

    Shapes:
        x (B, C, T) -> (B * C, 1, N)
    """

    def __init__(
        self,
        n_ffts: Sequence[int] = (2048, 1024, 512),
        width: int = 32,
        edges: Sequence[float] = EDGES,
        window: str = "hann",
        frames: str = "stride",
        average: bool = False,
        level: bool = True,
    ):
        judges = [BandedJudge(n_fft, width, edges, window, frames) for n_fft in n_ffts]
        super().__init__(judges, max(n_ffts), average=average, level=level)


def _stack(width: int) -> nn.ModuleList:
    convs = [
        conv2d(width if i else 2, width, (3, 9), (1, stride)) for i, stride in enumerate(STRIDES)
    ]
    return nn.ModuleList([*convs, conv2d(width, width, (3, 3))])
