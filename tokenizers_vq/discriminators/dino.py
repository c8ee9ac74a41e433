"""A discriminator on features of a frozen DINO network, as VAR, UniTok and ImageFolder train with.

Sauer et al., StyleGAN-T, 2023, https://arxiv.org/abs/2301.09515, section 3.2, built on
Caron et al., DINO, 2021, https://arxiv.org/abs/2104.14294 (ViT-S/16). Differs from the paper: the
heads judge every position and are not conditioned on text, as in the tokenizers named above.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.parametrizations import spectral_norm

from tokenizers_vq.discriminators.base import Discriminator
from tokenizers_vq.errors import CheckpointError, ConfigError, check_shape
from tokenizers_vq.weights import find_file, read_state

# the file that DINO published; its parameters have the names of timm
FILE = "dino_deitsmall16_pretrain.pth"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 8  # items that are normalised together


class Dino(Discriminator):
    """Five heads, one before the blocks of the ViT and one after each block of ``depths``.

    The ViT is frozen and outside the module tree: it is neither saved nor trained, and its weights
    are only taken from this machine.

    Args:
        channels: of the image, 3.
        weights: file of the ViT's weights, or a folder that holds
            ``dino_deitsmall16_pretrain.pth``; default ``$TVQ_WEIGHTS``, then the cache of
            ``torch.hub``.
        model: of timm, a ViT with a class token.
        depths: blocks, from 0, after which features are judged.
        kernel: positions that a head's second convolution sees, odd.
        crop_share: how often an image larger than the ViT's is cropped in training, not resized.

    Shapes:
        x (B, 3, H, W) -> (B, 1, heads * positions)

    Raises:
        CheckpointError: the weights are not on this machine, or are not of that model.
        ConfigError: another number of channels, an even kernel, or no such depth.
    """

    def __init__(
        self,
        channels: int = 3,
        weights: str | Path | None = None,
        *,
        model: str = "vit_small_patch16_224.dino",
        depths: tuple[int, ...] = (2, 5, 8, 11),
        kernel: int = 9,
        crop_share: float = 0.5,
    ):
        super().__init__()
        network = _frozen_vit(model, weights)
        if channels != 3 or kernel % 2 == 0 or not set(depths) <= set(range(len(network.blocks))):
            raise ConfigError(
                "Dino: expected 3 channels, an odd kernel and depths of "
                f"0..{len(network.blocks) - 1}; got channels {channels}, kernel {kernel}, depths "
                f"{list(depths)}. Correct the discriminator config."
            )
        self._vit: list[Any] = [network]  # in a list, so that it stays outside the module tree
        self.depths, self.crop_share = tuple(depths), crop_share
        self.side = int(network.patch_embed.img_size[0])
        width = int(network.embed_dim)
        self.heads = nn.ModuleList(
            nn.Sequential(
                _block(width, 1),
                _Half(_block(width, kernel)),
                spectral_norm(nn.Conv1d(width, 1, 1), eps=1e-12),
            )
            for _ in range(len(depths) + 1)
        )

    def check_signal(self, x: Tensor) -> None:
        """Raise ``ShapeError`` unless ``x`` is ``(B, 3, H, W)``."""
        check_shape(x, "B 3 H W", "Dino", "Images are channels first.")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(B, 1, heads * positions)`` of images ``(B, 3, H, W)`` in [-1, 1].

        Raises:
            ShapeError: another rank or number of channels.
        """
        self.check_signal(x)
        features = self.features(self._sized(x))
        logits = [head(one) for head, one in zip(self.heads, features, strict=True)]
        return torch.cat(logits, -1)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return what each head sees, ``(B, C, positions)``: patches plus the class token.

        Args:
            x: ``(B, 3, side, side)`` in [-1, 1].
        """
        vit = self._vit[0]
        if next(vit.parameters()).device != x.device:
            vit.to(x.device)
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(((x + 1) / 2 - mean) / std)))
        found = [tokens]
        for depth, block in enumerate(vit.blocks[: max(self.depths, default=-1) + 1]):
            tokens = block(tokens)
            if depth in self.depths:
                found.append(tokens)
        return [(one[:, 1:] + one[:, :1]).transpose(1, 2) for one in found]

    def _sized(self, x: Tensor) -> Tensor:
        """Return ``x`` at the ViT's size: cropped, averaged down, or bicubically enlarged."""
        height, width = x.shape[2:]
        if (height, width) == (self.side, self.side):
            return x
        shrink = min(height, width) > self.side
        if self.training and shrink and float(torch.rand(())) < self.crop_share:
            top, left = (int(torch.randint(0, n - self.side + 1, ())) for n in (height, width))
            return x[:, :, top : top + self.side, left : left + self.side]
        size = (self.side, self.side)
        return interpolate(x, size, mode="area") if shrink else interpolate(x, size, mode="bicubic")


class _Half(nn.Module):
    """``(f(x) + x) / sqrt(2)``."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x)
        return (made + x) * math.sqrt(0.5)


class LocalBatchNorm(nn.Module):
    """Batch normalisation over at most eight neighbouring items, without running statistics.

    Args:
        width: channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x (B, C, L)`` normalised per channel and group; groups divide the batch."""
        items = next(size for size in range(min(BATCH, len(x)), 0, -1) if len(x) % size == 0)
        grouped = x.float().reshape(-1, items, *x.shape[1:])
        mean = grouped.mean((1, 3), keepdim=True)
        var = grouped.var((1, 3), unbiased=False, keepdim=True)
        x = ((grouped - mean) * (var + 1e-6).rsqrt()).reshape(x.shape).to(x.dtype)
        return x * self.weight[:, None] + self.bias[:, None]


def _block(width: int, kernel: int) -> nn.Module:
    conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, padding_mode="circular")
    return nn.Sequential(spectral_norm(conv, eps=1e-12), LocalBatchNorm(width), nn.LeakyReLU(0.2))


def _frozen_vit(model: str, weights: str | Path | None) -> Any:
    """Return the ViT with weights of this machine, or raise ``CheckpointError``."""
    import timm

    path = find_file("Dino", FILE, weights) or find_file("Dino", f"{model}.safetensors")
    if path is None:
        raise CheckpointError(
            f"Dino: expected {FILE} in {Path(torch.hub.get_dir()) / 'checkpoints'}; there is none. "
            "Put DINO's file there, set TVQ_WEIGHTS to it, or choose another discriminator."
        )
    with torch.random.fork_rng(devices=()):  # the seed of a run shall not depend on frozen parts
        network: Any = timm.create_model(model, pretrained=False, num_classes=0)
    try:
        network.load_state_dict(read_state("Dino", path))
    except RuntimeError as error:
        raise CheckpointError(
            f"Dino: expected the weights of {model}; got others in '{path}'. "
            f"The right file is called {FILE}."
        ) from error
    return network.eval().requires_grad_(False)
