"""How many tokens stay the same when the picture changes a little."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.data.transforms import to_signal
from tokenizers_vq.evaluation.baselines import pixels_of
from tokenizers_vq.evaluation.image_codecs import RateTable
from tokenizers_vq.metrics.base import mean_interval
from tokenizers_vq.tokenizer import Tokenizer

BATCH = 4


def jpeg(image: Tensor, quality: int) -> Tensor:
    """Return a uint8 picture ``(3, H, W)`` after JPEG."""
    table = RateTable(pixels_of(image), "jpeg")
    return torch.from_numpy(table.decode(quality, 1.0, 0).image).permute(2, 0, 1)


def noise(image: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """Return a uint8 picture with Gaussian noise of ``sigma`` grey levels, rounded and clipped."""
    draw = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + sigma * draw).round().clamp(0, 255).to(torch.uint8)


CHANGES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "JPEG q95": lambda image: jpeg(image, 95),
    "JPEG q75": lambda image: jpeg(image, 75),
    "JPEG q50": lambda image: jpeg(image, 50),
    "noise 1": lambda image: noise(image, 1),
    "noise 5": lambda image: noise(image, 5),
    "grey levels +1": lambda image: (image.int() + 1).clamp(0, 255).to(torch.uint8),
}


def index_stability(
    tokenizer: Tokenizer, pixels: Tensor, resamples: int = 200, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return the share of unchanged indices per change, with a bootstrap interval over pictures.

    A shift by 1 px and by a whole position cuts the picture on one side; a shift by a position
    compares the tokens of the same places, which a convolution keeps away from the border.

    Args:
        tokenizer: of pictures, in evaluation.
        pixels: uint8 ``(N, 3, H, W)``, H and W whole positions and at least two of them.
        resamples: bootstrap draws.
        seed: of the bootstrap.
    """
    before = _tokens(tokenizer, pixels)
    found = {}
    for name, change in CHANGES.items():
        after = _tokens(tokenizer, torch.stack([change(image) for image in pixels]))
        found[name] = _share(after == before, resamples, seed)
    if tokenizer.encoder.size is None:
        step = tokenizer.stride[1]
        cut = pixels[..., :-step]
        reference = _tokens(tokenizer, cut)
        for name, by in (("shift 1 px", 1), ("shift half a position", step // 2)):
            moved = _tokens(tokenizer, pixels[..., by : by - step])
            found[name] = _share(moved == reference, resamples, seed)
        if tokenizer.encoder.latent_axes == 2:
            moved = _tokens(tokenizer, pixels[..., step:])
            same = moved[:, :, :-1] == reference[:, :, 1:]
            found["shift one position"] = _share(same, resamples, seed)
    return found


def _tokens(tokenizer: Tokenizer, pixels: Tensor) -> Tensor:
    parts = [tokenizer.encode(to_signal(part)).indices for part in torch.split(pixels, BATCH)]
    return torch.cat(parts).cpu()


def _share(same: Tensor, resamples: int, seed: int) -> dict[str, Any]:
    """Return the mean share over pictures, of single indices and of whole positions."""
    each = same.double().flatten(1).mean(1)
    whole = same.all(-1).double().flatten(1).mean(1)
    return {
        "indices": float(each.mean()),
        "interval": mean_interval(each, resamples, seed),
        "positions": float(whole.mean()),
        "n": len(each),
    }
