"""What tokenizers on top of an image autoencoder share: its latents in, its codes out.

ALIT and KARL read the latents of a frozen grid tokenizer (the base) beside patches of pixels, and
their decoders predict the base's codes, which the base turns into pixels.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizers_vq.backbones.base import Backbone, Decoder, Encoder
from tokenizers_vq.backbones.cnn2d_plan import rescale
from tokenizers_vq.backbones.transformer import Block, init_weights, run
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.types import Quantized, SignalSpec

Part = TypeVar("Part", bound=Backbone)

UNIT = (0.0, 1.0)  # the range these models work in


class ImageRows(nn.Module):
    """A picture as rows of width W: the base's latents and patches of pixels side by side.

    Args:
        width: W; the patches fill what the base leaves of it.
        signal: what the pixels mean; the patches are read in [0, 1].
        base: encoder of the base, with latents of width E < W.

    Shapes:
        x (B, C, H, W') -> base rows (B, N, E), patch rows (B, N, W - E)

    Raises:
        ConfigError: the base leaves no width.
    """

    def __init__(self, width: int, signal: SignalSpec, base: Encoder) -> None:
        super().__init__()
        if width <= base.dim:
            raise ConfigError(
                f"ImageRows: expected a width above {base.dim}, that of the base's latents; got "
                f"{width}. Correct the backbone config."
            )
        self.base = base
        self.value_range = signal.value_range
        step = (base.stride[0], base.stride[1])
        self.patch = nn.Conv2d(signal.channels, width - base.dim, step, stride=step)
        init_weights(self.patch)

    def forward(self, x: Tensor, latents: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the base's latents and the patches, a row per position.

        Args:
            x: pictures.
            latents: the base's latents ``(B, N, E)``, where they are known.
        """
        patches = self.patch(rescale(x, self.value_range, UNIT))
        if latents is None:
            latents = self.base(x).flatten(1, -2)
        return latents, patches.flatten(2).transpose(1, 2)

    @torch.no_grad()
    def latents(self, x: Tensor) -> Tensor:
        """Return the base's latents ``(B, N, E)`` without gradient."""
        latents: Tensor = self.base(x).flatten(1, -2)
        return latents


class CodePainter(nn.Module):
    """Rows to pixels by way of the base: logits over its codes, their mean code, its decoder.

    The picture is ``base(sum_k softmax(logits)_k c_k)`` with c the base's codebook.

    Args:
        width: W of the rows.
        codes: size of the base's codebook.
        base: decoder of the base, with latents of width E.

    Shapes:
        h (B, N, W) -> logits (B, N, codes); logits -> x_hat (B, C, H, W')

    Reference:
        Duggal et al., Adaptive Length Image Tokenization via Recurrent Allocation, 2024,
        https://arxiv.org/abs/2411.02393, section 3.
    """

    def __init__(self, width: int, codes: int, base: Decoder) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, codes)
        )
        init_weights(self.head, std=0.02)  # all codes are as likely to begin with
        self.codebook = nn.Parameter(torch.empty(codes, base.dim).uniform_(-1 / codes, 1 / codes))
        self.base = base

    def forward(self, h: Tensor) -> Tensor:
        """Return logits over the base's codes, ``(B, N, codes)``."""
        logits: Tensor = self.head(h)
        return logits

    def mean_code(self, logits: Tensor) -> Tensor:
        """Return the expected code of each row, ``(B, N, E)``."""
        with torch.autocast(logits.device.type, enabled=False):
            return logits.float().softmax(-1) @ self.codebook.float()

    def paint(self, codes: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return the picture ``(B, C, H, W')`` of codes ``(B, N, E)`` on ``grid``."""
        pixels: Tensor = self.base(codes.reshape(codes.shape[0], *grid, codes.shape[-1]))
        return pixels

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Return the index ``(B, N)`` of the code nearest to each base latent ``(B, N, E)``."""
        return nearest_code(z.flatten(0, -2), self.codebook)[1].view(z.shape[:-1])

    def losses(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far logits ``(B, N, codes)`` are from the base's own codes.

        Args:
            logits: of each row.
            target: ``(B, N)`` int64, the indices of the base's codes.

        Returns:
            The mean negative log likelihood, and the mean squared error of the mean code.
        """
        nll = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten())
        codebook = self.codebook.detach()  # of a base that stays as it is
        return nll, (logits.softmax(-1) @ codebook - codebook[target]).square().mean()


class Rows(nn.Module):
    """A stack of pre-norm blocks without norms around it.

    Args:
        width: W.
        layers: number of blocks.
        heads: attention heads of each.

    Shapes:
        x (B, N, W) -> (B, N, W)
    """

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        init_weights(self)

    def forward(self, x: Tensor, mask: Tensor | None = None, keep: slice | None = None) -> Tensor:
        """Return rows ``(B, N, W)``; ``mask`` and ``keep`` as for ``transformer.Attention``."""
        return run(self.blocks, x, mask, keep)


def visible(mask: Tensor | None, before: int) -> Tensor | None:
    """Return which rows may be looked at, ``(B, 1, 1, before + n)``, or None for all.

    Args:
        mask: ``(B, n)`` bool, True at latents that are there; None for all.
        before: rows in front of the latents that always are.
    """
    if mask is None:
        return None
    return F.pad(mask, (before, 0), value=True)[:, None, None]


def check_base(where: str, base: Encoder | Decoder, size: int) -> tuple[int, int]:
    """Return the grid of a square picture of ``size`` pixels.

    Raises:
        ConfigError: the size is not whole positions of the base.
    """
    if size < 1 or any(size % step for step in base.stride):
        raise ConfigError(
            f"{where}: expected a size in multiples of the base's stride {base.stride}; got {size}."
            " Correct the backbone config."
        )
    return size // base.stride[0], size // base.stride[1]


def one(where: str, given: Part | Sequence[Part]) -> Part:
    """Return the inner part, which configs nest as a list of one part.

    Raises:
        ConfigError: it is not one.
    """
    parts = list(given) if isinstance(given, Sequence) else [given]
    if len(parts) != 1 or not isinstance(parts[0], Backbone):
        raise ConfigError(
            f"{where}: expected one inner part; got {[type(part).__name__ for part in parts]}. "
            "Give it as a mapping with a name."
        )
    return parts[0]


def joined(parts: Sequence[Quantized]) -> Quantized:
    """Return several sequences as one: tokens behind each other, losses summed, terms averaged."""
    terms = {
        name: torch.stack([part.terms[name] for part in parts]).mean() for name in parts[0].terms
    }
    return Quantized(
        torch.cat([part.z_q for part in parts], dim=1),
        torch.cat([part.indices for part in parts], dim=1),
        torch.stack([part.loss for part in parts]).sum(),
        terms,
    )
