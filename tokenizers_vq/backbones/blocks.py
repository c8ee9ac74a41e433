"""Convolutional building blocks that encoders and decoders of images share."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["group", "none"]
Down = Literal["end", "both", "same", "average"]
Up = Literal["nearest", "depth_to_space"]

EPS = 1e-6  # of every normalisation of the VQGAN line of models
MANY = 18  # positions per channel from which on channels last is faster, see ``laid_out``


class GroupNorm(nn.GroupNorm):
    """Group normalisation that takes any width and any size.

    Uses the largest number of groups that divides the width and is at most ``groups``. A group of
    one single value is allowed (it becomes the bias), so that a 1x1 grid can be encoded.

    Args:
        channels: width.
        groups: number of groups wanted.
        affine: learn a gain and a bias per channel.

    Shapes:
        x (B, channels, *S) -> the same

    Reference:
        Wu and He, Group Normalization, 2018, https://arxiv.org/abs/1803.08494, eq. 1-7.
    """

    def __init__(self, channels: int, groups: int = 32, affine: bool = True) -> None:
        count = max(n for n in range(1, min(groups, channels) + 1) if channels % n == 0)
        super().__init__(count, channels, eps=EPS, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with each group at zero mean and unit variance, then gain and bias."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def laid_out(x: Tensor, channels: int | None = None, enlarge: int = 1) -> Tensor:
    """Return a feature map in the memory order in which 3x3 convolutions on the CPU are fast.

    A convolution reorders whatever does not lie as it computes: activations unless their channels
    lie last, and the weights. So channels go last where there are many positions for each of them,
    and first where the weights are most of the work: on one core 1.0 to 1.4 times as fast as the
    other order on either side of ``MANY``. Depends on the size of the picture alone, so that a
    batch gives what its items give.

    Args:
        x: ``(B, C, H, W)``.
        channels: width of the convolutions that follow; None for C.
        enlarge: how much higher and wider the feature map will be where they are.
    """
    if x.device.type != "cpu":
        return x
    positions = x.shape[-2] * x.shape[-1] * enlarge**2
    last = positions > MANY * (channels or x.shape[1])
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def make_norm(norm: Norm, channels: int, groups: int, affine: bool = True) -> nn.Module:
    """Return the normalisation layer that ``norm`` names, for ``channels`` channels."""
    return GroupNorm(channels, groups, affine) if norm == "group" else nn.Identity()


def swish_of(norm: nn.Module, x: Tensor) -> Tensor:
    """Return the swish of the normalised ``x``, in the memory of the latter where none needs it."""
    y: Tensor = norm(x)
    return F.silu(y, inplace=y is not x and not torch.is_grad_enabled())


class ResBlock(nn.Module):
    """Residual block of the VQGAN line: norm, swish, 3x3 convolution, twice.

    Where the width changes, a 1x1 convolution W makes the shortcut. The published families differ
    in what it reads: ``y = W x + h`` (``"input"``), or ``y = W h + h`` (``"output"``: the input
    does not reach the sum; so the released MaskGIT weights want it).

    Args:
        cin: input width.
        cout: output width.
        bias: biases in the convolutions.
        shortcut: what the 1x1 shortcut reads.
        norm: normalisation before each convolution.
        groups: groups of that normalisation.

    Shapes:
        x (B, cin, H, W) -> y (B, cout, H, W)

    Reference:
        Esser et al., Taming Transformers, 2021, https://arxiv.org/abs/2012.09841, table 7;
        Chang et al., MaskGIT, 2022, https://arxiv.org/abs/2202.04200 (its released tokenizer).
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        bias: bool = True,
        shortcut: Literal["input", "output"] = "input",
        norm: Norm = "group",
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, cin, groups)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1, bias=bias)
        self.norm2 = make_norm(norm, cout, groups)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=bias)
        self.shortcut_of = shortcut
        self.nin_shortcut: nn.Conv2d | None = None
        if cin != cout:
            source = cin if shortcut == "input" else cout
            self.nin_shortcut = nn.Conv2d(source, cout, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output ``(B, cout, H, W)``."""
        h: Tensor = self.conv1(swish_of(self.norm1, x))
        h = self.conv2(swish_of(self.norm2, h))
        if self.nin_shortcut is None:
            return x + h if torch.is_grad_enabled() else h.add_(x)
        shortcut: Tensor = self.nin_shortcut(x if self.shortcut_of == "input" else h)
        return shortcut + h


class SpatialAttention(nn.Module):
    """Single-head self-attention over all positions of a feature map, with a residual.

    ``y = x + P softmax(q k^T / sqrt(C)) v`` with q, k, v and P biased 1x1 convolutions of the
    normalised x. Cost grows with the square of H * W.

    Args:
        channels: width C.
        norm: normalisation of the input.
        groups: groups of that normalisation.

    Shapes:
        x (B, C, H, W) -> y (B, C, H, W)

    Reference:
        Esser et al., Taming Transformers, 2021, https://arxiv.org/abs/2012.09841, table 7.
    """

    def __init__(self, channels: int, norm: Norm = "group", groups: int = 32) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map."""
        attended = pointwise(self.proj_out, self._mixed(x)).transpose(1, 2).reshape(x.shape)
        if torch.is_grad_enabled() or attended.stride() != x.stride():
            return x + attended
        return attended.add_(x)

    def _mixed(self, x: Tensor) -> Tensor:
        """Return the means of values ``(B, H * W, C)``."""
        q, k, v = self._parts(x)
        return F.scaled_dot_product_attention(q, k, v).squeeze(1)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values ``(B, 1, H * W, C)``."""
        rows = self.norm(x).flatten(2).transpose(1, 2).contiguous()
        q, k, v = (pointwise(layer, rows).unsqueeze(1) for layer in (self.q, self.k, self.v))
        return q, k, v


def pointwise(layer: nn.Conv2d, rows: Tensor) -> Tensor:
    """Return what a 1x1 convolution makes of rows ``(B, N, C)``.

    With the channels last attention needs no matrix of all positions by all positions.
    """
    return F.linear(rows, layer.weight.flatten(1), layer.bias)


class Downsample(nn.Module):
    """Halves height and width.

    Args:
        channels: width.
        how: 3x3 convolution of stride 2 with one zero row and column at the ``"end"``, at
            ``"both"`` sides, or as TensorFlow's ``"same"`` places them (at the end for even sizes,
            on both sides for odd ones); or ``"average"`` pooling of 2x2 cells.

    Shapes:
        x (B, C, H, W) -> (B, C, H / 2, W / 2); ``"both"`` and ``"same"`` round odd sizes up
    """

    def __init__(self, channels: int, how: Down) -> None:
        super().__init__()
        self.how = how
        if how != "average":
            self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=int(how == "both"))

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature map at half the height and width."""
        if self.how == "average":
            return F.avg_pool2d(x, 2)
        if self.how == "end":
            x = F.pad(x, (0, 1, 0, 1))
        elif self.how == "same":
            # total = (ceil(n / 2) - 1) * 2 + 3 - n is 1 for even n, 2 for odd n; the smaller half
            # goes before the signal.
            x = F.pad(x, (x.shape[-1] % 2, 1, x.shape[-2] % 2, 1))
        half: Tensor = self.conv(x)
        return half


class Upsample(nn.Module):
    """Doubles height and width.

    Args:
        channels: width.
        how: ``"nearest"`` repeats pixels, then a 3x3 convolution; ``"depth_to_space"`` makes four
            times the channels with a 3x3 convolution and unfolds them into 2x2 cells.

    Shapes:
        x (B, C, H, W) -> (B, C, 2 H, 2 W)
    """

    def __init__(self, channels: int, how: Up) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(channels, channels * (1 if how == "nearest" else 4), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature map at twice the height and width."""
        x = laid_out(x, enlarge=2)
        if self.how == "nearest":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.conv(x)
        return x if self.how == "nearest" else depth_to_space(x)


def depth_to_space(x: Tensor) -> Tensor:
    """Unfold channels into 2x2 cells, block-major as TensorFlow does.

    Channel ``(2 a + b) * C + c`` becomes channel c of pixel (2 h + a, 2 w + b);
    ``torch.nn.functional.pixel_shuffle`` is channel-major instead.

    Args:
        x: ``(B, 4 C, H, W)``.

    Returns:
        ``(B, C, 2 H, 2 W)``, with the channels last in memory where they are so in ``x``.
    """
    batch, channels, height, width = x.shape
    if x.is_contiguous(memory_format=torch.channels_last):
        rows = x.movedim(1, -1).reshape(batch, height, width, 2, 2, channels // 4)
        pixels = rows.transpose(2, 3)  # (B, H, a, W, b, C)
        return pixels.reshape(batch, 2 * height, 2 * width, channels // 4).movedim(-1, 1)
    blocks = x.reshape(batch, 2, 2, channels // 4, height, width)  # (B, a, b, C, H, W)
    cells = blocks.permute(0, 3, 4, 1, 5, 2)  # (B, C, H, a, W, b)
    return cells.reshape(batch, channels // 4, 2 * height, 2 * width)


class AdaptiveGroupNorm(nn.Module):
    """Group normalisation whose gain and bias are read off the quantized latents.

    ``y = G sqrt(var(z_q) + 1e-6) * norm(x) + H mean(z_q)`` with affine maps G and H, and the
    unbiased variance and the mean of each latent channel over the whole grid.

    Args:
        channels: width of x.
        dim: latent width D.
        norm: normalisation of x.
        groups: groups of that normalisation.

    Shapes:
        x (B, channels, H, W), z_q (B, D, h, w) -> (B, channels, H, W)

    Reference:
        Luo et al., Open-MAGVIT2, 2024, https://arxiv.org/abs/2409.04410 (adaptive group
        normalization of the decoder), after Yu et al., MAGVIT-v2, 2023,
        https://arxiv.org/abs/2310.05737.
        Differs: the variance of a 1x1 grid is 0, not undefined.
    """

    def __init__(self, channels: int, dim: int, norm: Norm = "group", groups: int = 32) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels, groups, affine=False)
        self.gamma = nn.Linear(dim, channels)
        self.beta = nn.Linear(dim, channels)

    def forward(self, x: Tensor, z_q: Tensor) -> Tensor:
        """Return ``x`` normalised, with the gain and bias that ``z_q`` asks for."""
        flat = z_q.flatten(2).float()
        var, mean = torch.var_mean(flat, dim=2, correction=min(1, flat.shape[2] - 1))  # (B, D)
        gain: Tensor = self.gamma((var + EPS).sqrt().to(z_q.dtype))[:, :, None, None]
        bias: Tensor = self.beta(mean.to(z_q.dtype))[:, :, None, None]
        return torch.addcmul(bias, gain, self.norm(x))


def haar_patch(x: Tensor, patch: int) -> Tensor:
    """Fold ``patch x patch`` cells into channels with Haar wavelet steps.

    One step turns the cell a b / c d into LL = (a + b + c + d) / 4, LH = (a + b - c - d) / 4,
    HL = (a - b + c - d) / 4 and HH = (a - b - c + d) / 4, band after band, all channels of a band
    together.

    Args:
        x: ``(B, C, H, W)``.
        patch: side of a cell, a power of two; 1 changes nothing.

    Returns:
        ``(B, patch**2 * C, H / patch, W / patch)``.

    Reference:
        NVIDIA, Cosmos World Foundation Model Platform, 2025, https://arxiv.org/abs/2501.03575,
        section 4.
    """
    while patch > 1:
        x = _haar(*(x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))) / 4
        patch //= 2
    return x


def haar_unpatch(x: Tensor, patch: int) -> Tensor:
    """Undo ``haar_patch``: ``(B, patch**2 * C, H, W)`` to ``(B, C, patch * H, patch * W)``."""
    while patch > 1:
        x = depth_to_space(_haar(*x.chunk(4, dim=1)))
        patch //= 2
    return x


def _haar(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return a + b + c + d, a + b - c - d, a - b + c - d and a - b - c + d, channel after channel.

    Doing it twice gives four times what there was.
    """
    sum1, sum2, difference1, difference2 = a + b, c + d, a - b, c - d
    return torch.cat(
        [sum1 + sum2, sum1 - sum2, difference1 + difference2, difference1 - difference2], dim=1
    )
