"""PatchGAN: a small convolutional net that judges overlapping patches of an image.

Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017,
https://arxiv.org/abs/1611.07004, appendix 6.1.2. Differs from the paper: no condition image and no
sigmoid, as in every tokenizer that uses it; group normalisation may replace batch normalisation.
"""

from torch import Tensor, nn

from tokenizers_vq.discriminators.base import Discriminator
from tokenizers_vq.errors import ConfigError, ShapeError, check_shape, unknown_name

NORMS = ("batch", "group", "none")
GROUPS = 8


class PatchGAN(Discriminator):
    """Logits per patch; with three layers a patch is 70 pixels wide and logits are 8 apart.

    With the default width and batch normalisation it has 2,765,633 parameters.

    Args:
        channels: of the image.
        width: channels of the first layer; they double per layer up to eight times that.
        layers: stride-2 convolutions.
        norm: ``batch`` (the paper), ``group`` (8 groups: no mixing between images, so gradient
            accumulation and several processes give exactly the joined batch), or ``none``.

    Shapes:
        x (B, channels, H, W) -> (B, 1, h, w), h about H / 2^layers - 2

    Raises:
        ConfigError: another norm, fewer than one layer, or a width that is not a multiple of 8.
    """

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 3, norm: str = "batch"):
        super().__init__()
        if norm not in NORMS:
            raise unknown_name("PatchGAN norm", norm, NORMS)
        if layers < 1 or width < 1 or (norm == "group" and width % GROUPS):
            raise ConfigError(
                "PatchGAN: expected at least 1 layer and a width that is a multiple of "
                f"{GROUPS}; got layers {layers}, width {width}. Correct the discriminator config."
            )
        self.channels = channels
        # the fewest pixels that leave a logit: two 4-wide convolutions without stride at the end
        self.smallest = 3 * 2**layers
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        modules = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for i in range(1, layers + 1):
            stride = 2 if i < layers else 1
            # a normalisation that subtracts the mean per channel makes the bias idle
            modules.append(nn.Conv2d(widths[i - 1], widths[i], 4, stride, 1, bias=norm != "batch"))
            modules += [*_norm(norm, widths[i]), nn.LeakyReLU(0.2, inplace=True)]
        modules.append(nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.main = nn.Sequential(*modules)
        self.apply(_initialise)

    def check_signal(self, x: Tensor) -> None:
        """Raise unless images ``(B, channels, H, W)`` are large enough for one logit.

        Raises:
            ShapeError: another rank or number of channels, or too few pixels.
        """
        check_shape(x, f"B {self.channels} H W", "PatchGAN", "Images are channels first.")
        height, width = x.shape[2:]
        if min(height, width) < self.smallest:
            raise ShapeError(
                f"PatchGAN: expected images of at least {self.smallest} x {self.smallest} pixels; "
                f"got {height} x {width}. Use larger images, or fewer layers."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(B, 1, h, w)`` of images ``(B, channels, H, W)``.

        Raises:
            ShapeError: as ``check_signal``.
        """
        self.check_signal(x)
        logits: Tensor = self.main(x)
        return logits


def _norm(norm: str, width: int) -> list[nn.Module]:
    if norm == "batch":
        return [nn.BatchNorm2d(width)]
    return [nn.GroupNorm(GROUPS, width)] if norm == "group" else []


def _initialise(module: nn.Module) -> None:
    """Draw convolutions from N(0, 0.02) and normalisation gains from N(1, 0.02)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
