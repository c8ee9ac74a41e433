"""Flat float32 rows ``(N, d)``: what quantizer heads see of latents, and how they reduce them."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.entropy import weighted_mean

NARROW = 32  # widest side of a linear map that BLAS treats badly
CACHED = 128  # widest rows of which thousands stay in the cache


@dataclass(frozen=True)
class Tokens:
    """What is known about the flat rows besides their values.

    Attributes:
        valid: ``(N,)`` bool, rows that count in losses.
        item: ``(N,)`` int64, the item of the batch that a row belongs to.
        batch: number of items B.
    """

    valid: Tensor
    item: Tensor
    batch: int


@dataclass(frozen=True)
class Flat:
    """What a head makes of flat rows.

    Attributes:
        out: ``(N, d)`` float32, the codes with the gradient of the estimator.
        indices: ``(N, K)`` int64.
        loss: ``()`` float32.
        terms: unweighted means.
    """

    out: Tensor
    indices: Tensor
    loss: Tensor
    terms: dict[str, Tensor]


def float32_island(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast on ``device``: codes are searched in float32."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def mean_square(a: Tensor, b: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of ``(a - b)^2`` over valid rows and all columns, ``()``; 0 without rows.

    Args:
        a: ``(N, d)``.
        b: ``(N, d)``.
        valid: ``(N,)`` bool.
    """
    return weighted_mean((a - b).square().mean(-1), valid)


def squared_distances(x: Tensor, codes: Tensor) -> Tensor:
    """Return ``|x_n - e_k|^2`` of ``x (N, d)`` and ``codes (K, d)``, at least 0, as ``(N, K)``."""
    square = x.square().sum(-1, keepdim=True) + codes.square().sum(-1)
    return torch.addmm(square, x, codes.T, alpha=-2).clamp(min=0)


def mean_terms(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return each term's mean over the parts that have it."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: torch.stack([part[name] for part in parts if name in part]).mean() for name in names
    }


def is_finite(rows: Tensor) -> Tensor:
    """Return ``(N,)``: whether lengths, and so distances and losses, are finite numbers."""
    rows = rows.detach()
    if rows.device.type == "cpu" and not torch.compiler.is_compiling():
        values = rows.reshape(-1)  # one sum over everything is cheap, and mostly all there is to do
        if math.isfinite(float(torch.dot(values, values))):
            return torch.ones(rows.shape[0], dtype=torch.bool)
    return torch.isfinite(rows.square().sum(-1))


def zero_unless(keep: Tensor, rows: Tensor) -> Tensor:
    """Return ``rows (N, d)`` with zeros where ``keep (N,)`` is false; itself where none is.

    Looking is far cheaper than selecting on a CPU; on an accelerator it would wait for it.
    """
    looks = rows.device.type == "cpu" and not torch.compiler.is_compiling()
    if looks and bool(keep.all()):
        return rows
    return torch.where(keep[:, None], rows, 0.0)


def linear(layer: nn.Linear | None, x: Tensor) -> Tensor:
    """Apply a layer to ``x (..., d)`` in float32, whatever dtype its weights have.

    The maps from and to codes are often narrow on one side, where BLAS is up to six times slower
    with some layouts than with others. From narrow to wide, columns lie together on the narrow
    side and the weight is transposed: so its gradient is ``x.T @ g``, not ``g.T @ x``.
    """
    if layer is None:
        return x
    weight = layer.weight.float()
    bias = None if layer.bias is None else layer.bias.float()
    wide, narrow = max(weight.shape), min(weight.shape)
    if bias is None or wide < 2 * narrow or narrow > NARROW:
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    if weight.shape[0] == wide:  # always the same layout: a product may round by it
        out = torch.addmm(bias, rows.t().contiguous().t(), weight.t().contiguous())
    elif wide <= CACHED:
        out = torch.addmm(bias[:, None], weight, rows.t()).t()
    else:
        return F.linear(x, weight, bias)
    return out.reshape(*x.shape[:-1], weight.shape[0])


def code_width(where: str, dim: int | None, code_dim: int | None) -> int:
    """Return the width of the codes: ``code_dim``, or where that is None ``dim``.

    Raises:
        ConfigError: both are None.
    """
    width = dim if code_dim is None else code_dim
    if width is None:
        raise ConfigError(f"{where}: expected dim or code_dim; got neither. Set one of them.")
    return width


def check_weight(where: str, option: str, value: float | Sequence[float]) -> None:
    """Raise ``ConfigError`` unless a loss weight, or each of several, is finite and at least 0."""
    weights: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    for weight in weights:
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise ConfigError(
                f"{where}: expected {option} to be finite and at least 0; got {weight!r}. "
                "0 turns its term off."
            )


def check_share(where: str, **options: float) -> None:
    """Raise ``ConfigError`` unless each option is a number from 0 to 1."""
    for name, value in options.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise ConfigError(
                f"{where}: expected {name} in 0..1; got {value!r}. It is a probability or share."
            )
