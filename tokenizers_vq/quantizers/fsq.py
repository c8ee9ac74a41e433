"""Finite scalar quantization.

Reference:
    Mentzer et al., Finite Scalar Quantization: VQ-VAE Made Simple, 2023,
    https://arxiv.org/abs/2309.15505, eq. 1-3 and appendix A;
    Parker et al., Scaling Transformers for Low-Bitrate High-Quality Speech Coding, 2024,
    https://arxiv.org/abs/2411.19842 (the symmetric grid);
    Du et al., CosyVoice 2, 2024, https://arxiv.org/abs/2412.10117, eq. 1-2 (the inner bound).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.radix import check_radix, pack_digits, unpack_digits
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.quantizers.flat import Flat, Tokens
from tokenizers_vq.quantizers.rows import RowQuantizer

BOUNDS = ("tanh", "symmetric", "clamp", "inner")
EXACT = 4096  # levels between which float32 still has thousandths
WHOLE = 2**24  # float32 counts so far
ROUNDED = ("tanh", "inner")  # to even, not up
SLACK = 1e-3  # lets the outermost levels be reached by finite latents, as in the authors' code


def check_levels(levels: Sequence[int], where: str) -> tuple[int, ...]:
    """Return the numbers of levels, one per channel.

    Raises:
        ConfigError: they are no list of whole numbers, or a level is below 2.
    """
    if not isinstance(levels, Sequence) or not all(isinstance(n, int) for n in levels):
        raise ConfigError(
            f"{where}: expected levels, a list of whole numbers; got {levels!r:.80}. "
            "Give one per channel, as in [8, 5, 5]."
        )
    levels = tuple(levels)
    if not levels or min(levels) < 2:
        raise ConfigError(f"{where}: levels must be at least 2 each; got {levels}.")
    return levels


class FSQ(RowQuantizer):
    """Finite scalar quantization: round each of d bounded channels to a few levels.

    The codebook is the grid of all level combinations, so nothing is learned and nothing can
    collapse. The first channel changes the index fastest.

    Args:
        dim: latent width D; None for the number of channels.
        levels: number of levels per channel; their product is the codebook size.
        bound: how a channel is bounded. ``"tanh"``: as in the paper; an even number of levels L
            covers [-1, 1 - 2/L]. ``"symmetric"``: tanh to L levels from -1 to 1. ``"clamp"``: the
            same levels without tanh, so that a code approximates its latent; for residual stacks.
            ``"inner"``: an odd number of levels L, tanh to within 0.999 of the outermost ones, as
            the speech tokenizer of CosyVoice 2 has them.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Raises:
        ConfigError: ``levels`` is no list of whole numbers, a level is below 2, or is 2 with the
            tanh bound (whose two levels would meet at -3.8 instead of 0), or even with the inner
            one, or the product of levels reaches 2**63.

    Example:
        >>> q = FSQ(dim=16, levels=(8, 5, 5, 5))
        >>> q(torch.zeros(2, 4, 4, 16)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    conventions = (*RowQuantizer.conventions, "levels", "bound")
    float32_buffers = ("_half", "_offset", "_shift", "_width", "_start", "_top")
    _half: Tensor
    _offset: Tensor
    _shift: Tensor
    _width: Tensor
    _start: Tensor
    _top: Tensor

    def __init__(
        self, dim: int | None = None, *, levels: Sequence[int], bound: str = "tanh"
    ) -> None:
        where = type(self).__name__
        levels = check_levels(levels, where)
        if bound not in BOUNDS:
            raise unknown_name(f"{where} bound", bound, BOUNDS)
        if bound == "tanh" and 2 in levels:
            raise ConfigError(
                f"{where}: expected at least 3 levels with bound='tanh'; got {levels}. "
                "Use bound='symmetric'."
            )
        if bound == "inner" and any(n % 2 == 0 for n in levels):
            raise ConfigError(
                f"{where}: expected odd levels with bound='inner'; got {levels}. "
                "Use bound='tanh' or 'symmetric'."
            )
        super().__init__(dim, len(levels), (check_radix(levels, where),))
        self.levels = levels
        self.bound = bound
        self._fits = max(levels) <= EXACT  # no rounding in float32 leads outside the levels
        # One number for all channels, where they are alike, is far faster than one for each.
        each = levels[:1] if len(set(levels)) == 1 else levels
        for name, values in _tables(each, bound).items():
            self.register_buffer(name, torch.tensor(values), persistent=False)

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The levels of all channels."""
        return (self.levels,)

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize ``u (N, d)``: codes come from the levels, without taking indices apart."""
        bounded = self._bounded(source)
        level = self._level(bounded.detach())
        out = self._estimate(source, bounded, self._code(level))
        return Flat(out, self._packed(level), u.new_zeros(()), {})

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of ``u (N, d)``."""
        return self._packed(self._level(self._bounded(u)))

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, 1)``, within [-1, 1]."""
        return self._code(unpack_digits(indices[:, 0], self.levels).float())

    def surrogate(self, u: Tensor, codes: Tensor) -> Tensor:
        """Return ``codes`` with the gradient of the bound; of the identity for ``"clamp"``."""
        return self._estimate(u, self._bounded(u), codes)

    def _bounded(self, u: Tensor) -> Tensor:
        """Return the channels within [-1, 1]."""
        if self.bound == "tanh":
            return torch.tanh(u + self._shift)
        return u.clamp(-1, 1) if self.bound == "clamp" else torch.tanh(u)

    def _level(self, bounded: Tensor) -> Tensor:
        """Return the numbers of the nearest levels, whole float32 numbers from 0."""
        if self.bound == "inner":  # rounded around 0, where numbers are finest
            return torch.round(bounded * self._half) + self._start
        level = torch.addcmul(self._start, bounded, self._half)
        level = torch.round(level) if self.bound == "tanh" else torch.floor(level)
        return level if self._fits else torch.minimum(level.clamp(min=0), self._top)

    def _packed(self, level: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of numbers of levels ``(N, d)``."""
        digits = level if self.vocab_size <= WHOLE else level.long()
        return pack_digits(digits, self.levels)[:, None].long()

    def _code(self, level: Tensor) -> Tensor:
        return (level - self._width) / self._width

    def _estimate(self, u: Tensor, bounded: Tensor, codes: Tensor) -> Tensor:
        if self.bound == "clamp":
            return straight_through(u, codes)
        slope = self._half / self._width
        return straight_through(bounded * slope if self.bound in ROUNDED else bounded, codes)


def _tables(levels: Sequence[int], bound: str) -> dict[str, list[float]]:
    """Return what the bound needs to know of each channel.

    A bounded number b lies ``b * half + start`` levels above the lowest; it is then rounded to
    even at the tanh bound, and up otherwise.
    """
    width = [float(n // 2) if bound in ROUNDED else (n - 1) / 2 for n in levels]
    offset = [0.5 if bound == "tanh" and n % 2 == 0 else 0.0 for n in levels]
    half = width
    if bound == "tanh":
        # Half the range, at most half a level beyond the outermost one: (L - 1) * 1e-3 / 2 would
        # pass it from 1001 levels on, and indices would leave the codebook.
        half = [(n - 1) / 2 + min(0.5 * (1 - SLACK), (n - 1) * SLACK / 2) for n in levels]
    if bound == "inner":
        half = [(n - 1) / 2 * (1 - SLACK) for n in levels]
    up = 0.0 if bound in ROUNDED else 0.5
    return {
        "_half": half,
        "_offset": offset,
        "_shift": [math.atanh(o / h) for o, h in zip(offset, half, strict=True)],
        "_width": width,
        "_start": [w - o + up for w, o in zip(width, offset, strict=True)],
        "_top": [n - 1.0 for n in levels],
    }
