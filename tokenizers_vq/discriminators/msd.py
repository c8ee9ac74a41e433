"""The multi-scale discriminator: the waveform at several sample rates.

Kumar et al., MelGAN, 2019, https://arxiv.org/abs/1910.06711, section 2.2, in the form of Kong et
al., HiFi-GAN, 2020, https://arxiv.org/abs/2010.05646, section 2.3.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import avg_pool1d
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tokenizers_vq.discriminators.judges import Judge, Panel

# by layer: channels as a multiple of the width, taps, stride, groups
LAYERS = (
    (1, 15, 1, 1),
    (1, 41, 2, 4),
    (2, 41, 2, 16),
    (4, 41, 4, 16),
    (8, 41, 4, 16),
    (8, 41, 1, 16),
    (8, 5, 1, 1),
)


class ScaleJudge(Judge):
    """Judges the waveform after ``halvings`` poolings by 2.

    Args:
        width: channels of the first layer.
        halvings: poolings.
        norm: of the weights.
    """

    def __init__(self, width: int, halvings: int, norm: Callable[..., nn.Module]):
        convs, c_in = [], 1
        for factor, taps, stride, groups in LAYERS:
            c_out = width * factor
            conv = nn.Conv1d(c_in, c_out, taps, stride, taps // 2, groups=groups)
            convs.append(norm(conv))
            c_in = c_out
        super().__init__(convs, norm(nn.Conv1d(c_in, 1, 3, padding=1)), 0.1)
        self.halvings = halvings

    def view(self, x: Tensor) -> Tensor:
        """Return ``x (B, 1, T)`` at ``2^-halvings`` of its rate."""
        for _ in range(self.halvings):
            x = avg_pool1d(x, 4, 2, padding=2)
        return x


class MSD(Panel):
    """Judges at the full, half, quarter... rate; by default it has 29,618,821 weights and gains.

    The first has spectrally normalised weights, the others normed ones.

    Args:
        scales: number of judges.
        width: channels of the first layer, a multiple of 16; times 8 in the last ones.
        average: each judge counts 1 / n, else 1.

    Shapes:
        x (B, C, T) -> (B * C, 1, N)
    """

    def __init__(self, scales: int = 3, width: int = 128, average: bool = False):
        norms: list[Callable[..., nn.Module]] = [spectral_norm, *[weight_norm] * (scales - 1)]
        judges = [ScaleJudge(width, i, norm) for i, norm in enumerate(norms)]
        super().__init__(judges, 64 * 2**scales, average=average)
