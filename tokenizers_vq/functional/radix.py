"""Mixed-radix numbers in int64: several small indices as one, least significant first."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError

LIMIT = 2**63  # first product that int64 cannot count


def check_radix(sizes: Sequence[int], where: str) -> int:
    """Return the product of ``sizes``, the number of values that one packed index can take.

    Raises:
        ConfigError: the product does not fit in int64.
    """
    product = math.prod(sizes)
    if product >= LIMIT:
        raise ConfigError(
            f"{where}: expected a product of sizes below 2**63; got 2**{math.log2(product):.1f}. "
            "Keep one index per codebook instead of packing them."
        )
    return product


def pack_digits(digits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return one index for each row of digits: ``sum_i digit_i * prod_{j<i} size_j``.

    Args:
        digits: ``(..., d)`` int64, ``0 <= digits[..., i] < sizes[i]``. Of another dtype, the
            result has that too, and is exact as far as it can count.
        sizes: the ``d`` radices; the first changes fastest.

    Returns:
        ``(...)`` int64.

    Raises:
        ConfigError: the product of ``sizes`` is 2**63 or more.
    """
    check_radix(sizes, "pack_digits")
    index = digits[..., -1]
    for place in range(len(sizes) - 2, -1, -1):  # Horner: no table of place values to move around
        index = torch.add(digits[..., place], index, alpha=sizes[place])
    return index


def unpack_digits(index: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the digits ``(..., d)`` int64 of ``index (...)``: the inverse of ``pack_digits``.

    Raises:
        ConfigError: the product of ``sizes`` is 2**63 or more.
    """
    check_radix(sizes, "unpack_digits")
    digits = []
    for size in sizes:
        digits.append(index % size)
        index = torch.div(index, size, rounding_mode="floor")
    return torch.stack(digits, dim=-1)


def pack_bits(bits: Tensor) -> Tensor:
    """Return ``(...)`` int64 for ``bits (..., d)``, bool or 0/1, ``d <= 62``; bit 0 comes first."""
    return (bits * (1 << torch.arange(bits.shape[-1], device=bits.device))).sum(-1)


def unpack_bits(index: Tensor, count: int) -> Tensor:
    """Return the ``count`` lowest bits ``(..., count)`` int64 of ``index (...)``."""
    return (index[..., None] >> torch.arange(count, device=index.device)) & 1


def reverse_bits(index: Tensor, count: int) -> Tensor:
    """Return ``index (...)`` int64 with its ``count`` lowest bits in the other order.

    Published binary quantizers disagree on whether the first channel is the lowest bit (as here)
    or the highest; this turns the indices of either kind into those of the other.

    Args:
        index: ``0 <= index < 2**count``.
        count: number of bits, at most 62.
    """
    return pack_bits(unpack_bits(index, count).flip(-1))
