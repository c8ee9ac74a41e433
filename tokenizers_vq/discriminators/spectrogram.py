"""Magnitude spectra at many resolutions, judged as pictures: X-Codec-2 and BigCodec.

Xin et al., BigCodec, 2024, https://arxiv.org/abs/2409.05377, section 2.3.
The released code of X-Codec-2 keeps squared magnitudes in a range, and so do we.
"""

from collections.abc import Sequence

from torch import Tensor

from tokenizers_vq.discriminators.judges import Judge, Panel, conv2d, stft

POWER = (1e-7, 1e3)  # range of squared magnitudes


class PictureJudge(Judge):
    """Judges magnitudes with 5 x 5 convolutions that halve both axes.

    Args:
        n_fft: samples of a frame; the hop is a half.
        width: channels of the first layer; they double per layer, four times.
    """

    def __init__(self, n_fft: int, width: int):
        widths = [1, *(width * 2**i for i in range(4))]
        convs = [conv2d(widths[i], widths[i + 1], (5, 5), (2, 2)) for i in range(4)]
        convs.append(conv2d(8 * width, 16 * width, (3, 3)))
        super().__init__(convs, conv2d(16 * width, 1, (3, 3)), 0.2)
        self.n_fft = n_fft

    def view(self, x: Tensor) -> Tensor:
        """Return ``(B, 1, n_fft / 2 + 1, frames)`` of ``x (B, 1, T)``."""
        z = stft(x, self.n_fft, self.n_fft // 2)
        return (z.real.square() + z.imag.square()).clamp(*POWER).sqrt()[:, None]


class Spectrogram(Panel):
    """One judge per resolution; by default (X-Codec-2) it has 18,097,936 parameters.

    Args:
        n_ffts: samples of a frame, by judge; BigCodec has 128, 256, 512, 1024, 2048.
        width: channels of the first layer.
        average: each judge counts 1 / n, else 1.

    Shapes:
        x (B, C, T) -> (B * C, 1, N)
    """

    def __init__(
        self,
        n_ffts: Sequence[int] = (78, 126, 206, 334, 542, 876, 1418, 2296),
        width: int = 32,
        average: bool = False,
    ):
        judges = [PictureJudge(n_fft, width) for n_fft in n_ffts]
        super().__init__(judges, max(n_ffts) // 2 + 1, average=average)
