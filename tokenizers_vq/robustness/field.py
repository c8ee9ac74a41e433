"""Where a token acts, and where it looks: its receptive fields, measured instead of counted.

Reference:
    Luo et al., Understanding the Effective Receptive Field in Deep Convolutional Neural Networks,
    2016: most of the influence comes from a small part of the field that the kernels span.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.data.transforms import to_signal
from tokenizers_vq.tokenizer import Tokenizer

ENERGY = 0.9  # share of the squared influence inside the effective field
SEEN = 1 / 255  # of the range: a change below half a grey level is not seen


def receptive_fields(tokenizer: Tokenizer, image: Tensor) -> dict[str, dict[str, Any]]:
    """Return the fields of the token in the middle of the grid.

    ``decode``: the samples that another code at that place changes (the one half a codebook away,
    in every codebook). ``encode``: the squared gradient of that place's latent to the samples.

    Args:
        tokenizer: of pictures, in evaluation.
        image: uint8 ``(3, H, W)``.

    Returns:
        For both, ``extent`` in samples per axis (what changes by a grey level, or has any
        gradient), ``effective``, the smallest odd square around the centre of mass that holds 90 %
        of the squared influence, and ``share`` of the samples inside the extent.
    """
    x = to_signal(image[None])
    codes = tokenizer.encode(x)
    place = (0, *(size // 2 for size in codes.indices.shape[1:-1]))
    indices = codes.indices.clone()
    sizes = torch.tensor(codes.codebook_sizes)
    indices[place] = (indices[place] + sizes // 2) % sizes
    change = tokenizer.decode(replace(codes, indices=indices)) - tokenizer.decode(codes)
    span = tokenizer.signal.value_range[1] - tokenizer.signal.value_range[0]
    decode = _field(change[0], change[0].abs().amax(0) >= SEEN * span)
    gradient = _gradient(tokenizer, x)
    return {"decode": decode, "encode": _field(gradient[0], gradient[0].abs().amax(0) > 0)}


def _gradient(tokenizer: Tokenizer, x: Tensor) -> Tensor:
    """Return the gradient of a random direction of the middle latent to the samples."""
    x = tokenizer.encoder.frame(x).detach().requires_grad_()
    with torch.enable_grad():
        z = tokenizer.encoder(x)
        place = (0, *(size // 2 for size in z.shape[1:-1]))
        direction = torch.randn(z.shape[-1], generator=torch.Generator().manual_seed(0)).to(z)
        (gradient,) = torch.autograd.grad((z[place] * direction).sum(), x)
    return gradient


def _field(influence: Tensor, seen: Tensor) -> dict[str, Any]:
    """Describe an influence ``(C, H, W)`` and the mask ``(H, W)`` of what counts as touched."""
    energy = influence.double().square().sum(0)
    rows, columns = seen.any(1).nonzero()[:, 0], seen.any(0).nonzero()[:, 0]
    extent = [int(one[-1] - one[0]) + 1 if len(one) else 0 for one in (rows, columns)]
    return {
        "extent": extent,
        "effective": _effective(energy),
        "share": float(seen.double().mean()),
    }


def _effective(energy: Tensor) -> int:
    total = float(energy.sum())
    if not total > 0:
        return 0
    height, width = energy.shape
    y = round(float((energy.sum(1) * torch.arange(height)).sum()) / total)
    x = round(float((energy.sum(0) * torch.arange(width)).sum()) / total)
    for radius in range(max(height, width)):
        part = energy[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        if float(part.sum()) >= ENERGY * total:
            return 2 * radius + 1
    return max(height, width)
