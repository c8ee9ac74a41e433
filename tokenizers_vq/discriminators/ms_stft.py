"""The multi-scale STFT discriminator of EnCodec.

Defossez et al., High Fidelity Neural Audio Compression, 2022, https://arxiv.org/abs/2210.13438,
section 3.4 and figure 2.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from tokenizers_vq.discriminators.judges import Judge, Panel, as_channels, conv2d, stft


class ComplexJudge(Judge):
    """Judges real and imaginary parts of one spectrum with layers dilated in time.

    Args:
        n_fft: samples of a frame; the hop is a quarter.
        width: channels of each layer.
        slope: of the rectifiers below 0.
    """

    def __init__(self, n_fft: int, width: int, slope: float):
        # the released code leaves the weights of the first layer without norm
        first = nn.Conv2d(2, width, (3, 9), padding=(1, 4))
        dilated = [conv2d(width, width, (3, 9), (1, 2), (d, 1)) for d in (1, 2, 4)]
        convs = [first, *dilated, conv2d(width, width, (3, 3))]
        super().__init__(convs, conv2d(width, 1, (3, 3)), slope)
        self.n_fft = n_fft

    def view(self, x: Tensor) -> Tensor:
        """Return ``(B, 2, frames, n_fft / 2 + 1)`` of ``x (B, 1, T)``."""
        return as_channels(stft(x, self.n_fft, self.n_fft // 4, frames="valid", normalized=True))


class MSSTFT(Panel):
    """One judge per scale; 283,398 parameters for the three scales of the released package.

    Args:
        n_ffts: samples of a frame, by judge; the training code has 256 and 128, too.
        width: channels of each layer.
        slope: of the rectifiers below 0; 0.3 in the training code.
        average: each judge counts 1 / n, as in EnCodec, else 1.

    Shapes:
        x (B, C, T) -> (B * C, 1, N)
    """

    def __init__(
        self,
        n_ffts: Sequence[int] = (1024, 2048, 512),
        width: int = 32,
        slope: float = 0.2,
        average: bool = True,
    ):
        judges = [ComplexJudge(n_fft, width, slope) for n_fft in n_ffts]
        super().__init__(judges, max(n_ffts), average=average)
