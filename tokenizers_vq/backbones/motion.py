"""Convolutions over the frames of human motion.

Reference:
    Zhang et al., T2M-GPT: Generating Human Motion from Textual Descriptions with Discrete
    Representations, 2023, https://arxiv.org/abs/2301.06052, section 3.1 and figure 2;
    Guo et al., MoMask: Generative Masked Modeling of 3D Human Motions, 2023,
    https://arxiv.org/abs/2312.00063, section 3.1 (the same network).
    Differs from both: the statistics of the features are part of the network, which takes and
    returns features in their own units. No dropout, which MoMask trains with.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Backbone, Decoder, Encoder
from tokenizers_vq.backbones.standardize import Standardize
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.framing import crop
from tokenizers_vq.types import Reconstruction, SignalSpec

if TYPE_CHECKING:
    from tokenizers_vq.tokenizer import Tokenizer


class Unit(nn.Module):
    """Residual unit ``x + conv1(relu(conv3(relu(x))))``, the first one dilated.

    Args:
        width: channels.
        dilation: of the first convolution.

    Shapes:
        x (B, W, T) -> (B, W, T)
    """

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, W, T)``."""
        h: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + h


class MotionEncoder(Encoder):
    """Halve the frames ``levels`` times, residual units behind each.

    Args:
        dim: latent width D.
        signal: features of frames, such as the 263 of HumanML3D or the 251 of KIT-ML.
        width: channels.
        levels: halvings; the stride is ``2 ** levels``.
        depth: residual units per level, of dilations ``3 ** (depth - 1)`` down to 1.
        groups: see ``Standardize``.

    Shapes:
        x (B, C, T) -> z (B, T / stride, D)

    Raises:
        ConfigError: a number is below 1, or the groups are not C channels.

    Example:
        >>> encoder = MotionEncoder(8, SignalSpec("motion", 263), width=16)
        >>> encoder(torch.zeros(1, 263, 20)).shape
        torch.Size([1, 5, 8])
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 512,
        levels: int = 2,
        depth: int = 3,
        groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__(dim, (2**levels,), signal)
        _check(self, width, levels, depth)
        self.standardize = Standardize(signal.channels, groups)
        layers: list[nn.Module] = [nn.Conv1d(signal.channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(levels):
            layers += [nn.Conv1d(width, width, 4, stride=2, padding=1), *_units(width, depth)]
        self.layers = nn.Sequential(*layers, nn.Conv1d(width, dim, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, T / stride, D)`` of features ``(B, C, T)``."""
        self.check_signal(x)
        z: Tensor = self.layers(self.standardize(x))
        return z.mT


class MotionDecoder(Decoder):
    """Double the frames ``levels`` times, residual units in front of each.

    It trains on standardised features, and returns the loss term ``position``: the smooth L1
    distance of the joints' positions alone (the "velocity" loss of the published code).

    Args:
        dim: latent width D.
        signal: features of frames.
        width: channels.
        levels: doublings.
        depth: residual units per level.
        groups: see ``Standardize``.

    Shapes:
        z_q (B, T', D) -> x_hat (B, C, T' * stride)

    Raises:
        ConfigError: a number is below 1, or the groups are not C channels.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 512,
        levels: int = 2,
        depth: int = 3,
        groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__(dim, (2**levels,), signal)
        _check(self, width, levels, depth)
        self.standardize = Standardize(signal.channels, groups)
        layers: list[nn.Module] = [nn.Conv1d(dim, width, 3, padding=1), nn.ReLU()]
        for _ in range(levels):
            layers += [*_units(width, depth), nn.Upsample(scale_factor=2)]
            layers += [nn.Conv1d(width, width, 3, padding=1)]
        layers += [nn.Conv1d(width, width, 3, padding=1), nn.ReLU()]
        self.last = nn.Conv1d(width, signal.channels, 3, padding=1)
        self.layers = nn.Sequential(*layers)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        return self.last.weight

    def forward(self, z_q: Tensor) -> Tensor:
        """Return features ``(B, C, T' * stride)`` of latents ``(B, T', D)``."""
        return self.standardize.undo(self.standardized(z_q))

    def standardized(self, z_q: Tensor) -> Tensor:
        """Return the standardised features ``(B, C, T' * stride)`` of latents ``(B, T', D)``."""
        self.check_latents(z_q)
        y: Tensor = self.last(self.layers(z_q.mT))
        return y

    def training_pass(self, tokenizer: "Tokenizer", x: Tensor, step: int) -> Reconstruction:
        """Return standardised features, and the target of the same scale.

        Args:
            tokenizer: whose encoder and quantizer run.
            x: features ``(B, C, T)``.
            step: not used.
        """
        z = tokenizer.encoder(tokenizer.encoder.frame(x))
        quantized = tokenizer.quantizer(z)
        y = crop(self.standardized(quantized.z_q), tuple(x.shape[2:]))
        target = self.standardize(x)
        joints = slice(4, 3 * ((x.shape[1] + 1) // 12) + 1)
        position = F.smooth_l1_loss(y[:, joints].float(), target[:, joints].float())
        return Reconstruction(y, z, quantized, {"position": position}, target)


def _units(width: int, depth: int) -> list[nn.Module]:
    return [Unit(width, 3**power) for power in reversed(range(depth))]


def _check(part: Backbone, width: int, levels: int, depth: int) -> None:
    if min(width, levels, depth) < 1:
        raise ConfigError(
            f"{type(part).__name__}: expected width, levels and depth of 1 or more; got {width}, "
            f"{levels} and {depth}. Correct the backbone config."
        )
