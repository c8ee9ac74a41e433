"""The multi-period discriminator: samples a period apart are judged as a picture.

Kong et al., HiFi-GAN, 2020, https://arxiv.org/abs/2010.05646, section 2.3.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.parametrizations import weight_norm

from tokenizers_vq.discriminators.judges import Judge, Panel, conv2d


class PeriodJudge(Judge):
    """Judges a sound folded at one period.

    Args:
        period: samples per row.
        width: channels of the first layer; the others have 4, 16, 32 and 32 times that.
        post: taps of the last layer.
        always: pad by a whole period where the length is a multiple of it, as DAC does.
        skip: layers, from the first, that are not shown.
    """

    def __init__(self, period: int, width: int, post: int, *, always: bool, skip: int):
        widths = [1, *(width * factor for factor in (1, 4, 16, 32, 32))]
        convs = [conv2d(widths[i], widths[i + 1], (5, 1), (3 if i < 4 else 1, 1)) for i in range(5)]
        last = weight_norm(nn.Conv2d(widths[-1], 1, (post, 1), padding=(1, 0)))
        super().__init__(convs, last, 0.1, skip)
        self.period, self.always = period, always

    def view(self, x: Tensor) -> Tensor:
        """Fold ``x (B, 1, T)`` to ``(B, 1, ceil(T / period), period)``, the end reflected."""
        missing = -x.shape[-1] % self.period
        if self.always and not missing:
            missing = self.period
        x = pad(x, (0, missing), mode="reflect")
        return x.view(len(x), 1, -1, self.period)


class MPD(Panel):
    """One judge per period; with the default width it has 41,105,770 parameters.

    Args:
        periods: in samples, best without common factors.
        width: channels of the first layer, times 32 in the last ones.
        post: taps of the last layer (X-Codec-2 has 2).
        average: each judge counts 1 / n, else 1.
        level: take off the mean and scale the peak to 0.8 first (DAC).
        always_pad: pad by a whole period where the length is a multiple of it (DAC).
        skip: layers, from the first, whose features are not shown (Vocos: 1).

    Shapes:
        x (B, C, T) -> (B * C, 1, N)
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        width: int = 32,
        post: int = 3,
        average: bool = False,
        level: bool = False,
        always_pad: bool = False,
        skip: int = 0,
    ):
        judges = [PeriodJudge(p, width, post, always=always_pad, skip=skip) for p in periods]
        super().__init__(judges, 2 * max(periods), average=average, level=level)
