"""The multi-resolution discriminator: magnitudes of spectra.

Jang et al., UnivNet, 2021, https://arxiv.org/abs/2106.07889, section 2.2, with the layers of
Siuzdak, Vocos, 2023, https://arxiv.org/abs/2306.00814.
"""

from collections.abc import Sequence

from torch import Tensor

from tokenizers_vq.discriminators.judges import Judge, Panel, conv2d, stft

KERNELS = ((7, 5), (5, 3), (5, 3), (3, 3), (3, 3))
STRIDES = ((2, 2), (2, 1), (2, 2), (2, 1), (2, 2))


class MagnitudeJudge(Judge):
    """Judges the magnitudes of one spectrum, through a rectangular window.

    Args:
        n_fft: samples of a frame.
        width: channels of each layer.
    """

    def __init__(self, n_fft: int, width: int):
        convs = [
            conv2d(width if i else 1, width, kernel, stride)
            for i, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True))
        ]
        super().__init__(convs, conv2d(width, 1, (3, 3)), 0.1)
        self.n_fft = n_fft

    def view(self, x: Tensor) -> Tensor:
        """Return ``(B, 1, n_fft / 2 + 1, frames)`` of ``x (B, 1, T)``."""
        return stft(x, self.n_fft, self.n_fft // 4, window="ones").abs()[:, None]


class MRD(Panel):
    """One judge per resolution, as in Vocos, WavTokenizer, Language-Codec and SimVQ.

    By default it has 600,198 parameters.

    Args:
        n_ffts: samples of a frame, by judge; the hop is a quarter.
        width: channels of each layer.
        average: each judge counts 1 / n, else 1.

    Shapes:
        x (B, C, T) -> (B * C, 1, N)
    """

    def __init__(
        self, n_ffts: Sequence[int] = (1024, 2048, 512), width: int = 64, average: bool = False
    ):
        judges = [MagnitudeJudge(n_fft, width) for n_fft in n_ffts]
        super().__init__(judges, max(n_ffts) // 2 + 1, average=average)
