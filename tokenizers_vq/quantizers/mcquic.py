"""Sampled multi-codebook quantization on several levels, each half as fine as the one before.

Reference:
    Zhu et al., Unified Multivariate Gaussian Mixture for Efficient Neural Image Compression, 2022,
    https://arxiv.org/abs/2203.10897, sections 3.2-3.4, as in the authors' released models.
    Differs from those: one convolution stands between two levels, where they have residual and
    attention blocks; the indices of a training forward are the sampled ones, so that they always
    decode to the output.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.distributed import sum_over_ranks
from tokenizers_vq.functional.reassign import reassign_unused
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.flat import Flat, check_share, code_width
from tokenizers_vq.quantizers.grid import (
    GridConv,
    GridQuantizer,
    channels_first,
    channels_last,
    positions,
)

FLOOR = 1e-6  # of the learned sharpness
NEVER = 1e-6  # a code below this frequency counts as one that never occurs


class McQuic(GridQuantizer):
    """Gumbel-sampled vector quantization on levels of falling resolution.

    Level l sees what level l - 1 left over, halved by a convolution. Decoding adds the levels from
    coarse to fine, doubled by a convolution each time. A code is drawn with logits
    ``-t |z - e|^2 / sqrt(K)``, t learned for each codebook; the output is the drawn code, with the
    gradient of the softmax to latents and t. In evaluation the nearest code is taken.

    Args:
        dim: latent width D; None for ``code_dim``.
        codebook_size: codes K of each codebook.
        levels: number of levels.
        codebooks: number of codebooks m per level, each for a part of the channels.
        code_dim: width the levels work in; None for ``dim``.
        axes: rank of the grid, 1 to 3.
        temperature: what t starts at, above 0; larger is surer of the nearest code. At the paper's
            1, draws from thousands of codes are almost even until t has grown, which takes long.
        drop_frequent: leave out codes at random in training, frequent ones more often.
        decay: of the moving average of the codes' frequencies, per update.
        restart_every: updates after which codes that never occur become copies of frequent ones;
            0 for never.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, positions of all levels, m): the finest
        level first, each row-major, of sides ``ceil(side / 2**level)``.

    Terms:
        ``temperature``, the mean of t. There is no loss: the codebooks learn through the output.

    Raises:
        ConfigError: a width is missing or not divisible by ``codebooks``, or an option is out of
            range.

    Example:
        >>> q = McQuic(dim=8, codebook_size=16, levels=3)
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 21, 1])
    """

    conventions = (*GridQuantizer.conventions, "levels", "axes")
    float32_buffers = ("frequencies", "nonfinite", "updates")
    frequencies: Tensor
    nonfinite: Tensor
    updates: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        codebook_size: int,
        levels: int = 3,
        codebooks: int = 1,
        code_dim: int | None = None,
        axes: int = 2,
        temperature: float = 1.0,
        drop_frequent: bool = False,
        decay: float = 0.9,
        restart_every: int = 0,
    ) -> None:
        width = code_width("McQuic", dim, code_dim)
        self._check_options(width, levels, codebooks, axes)
        check_share("McQuic", decay=decay)
        if temperature <= 0:
            raise ConfigError(
                f"McQuic: expected a temperature above 0; got {temperature}. Correct it."
            )
        super().__init__(dim, width, (codebook_size,) * codebooks)
        self.levels, self.axes = levels, axes
        self.drop_frequent = drop_frequent
        self.decay = decay
        self.restart_every = restart_every
        part = self.code_dim // codebooks
        shape = (levels, codebooks, codebook_size)
        self.codebook = nn.Parameter(torch.randn(*shape, part) * math.sqrt(2 / (5 * part)))
        self.temperature = nn.Parameter(torch.full((levels, codebooks), float(temperature)))
        between = range(levels - 1)
        self.down = nn.ModuleList(GridConv(self.code_dim, axes, stride=2) for _ in between)
        self.up = nn.ModuleList(GridConv(self.code_dim, axes) for _ in between)
        self.register_buffer("frequencies", torch.full(shape, 1 / codebook_size))
        self.register_buffer("nonfinite", torch.zeros(()))
        self.register_buffer("updates", torch.zeros(()))

    def level_grids(self, grid: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the grids of the levels for latents on ``grid``, the finest first."""
        return [tuple(-(-side // 2**level) for side in grid) for level in range(self.levels)]

    def token_count(self, grid: tuple[int, ...]) -> int:
        """Return the number of positions of all levels."""
        return sum(self._counts(grid))

    def latent_grid(self, index_grid: tuple[int, ...]) -> tuple[int, ...]:
        """Refuse: many grids have as many tokens.

        Raises:
            ShapeError: always.
        """
        raise ShapeError(
            f"McQuic: expected the grid of the latents; got only {index_grid} for the tokens of "
            "all levels. Call decode(indices, grid), or decode Codes."
        )

    def quantize_grid(self, u: Tensor, valid: Tensor) -> Flat:
        """Quantize level by level; draw the codes in training."""
        rest, grid = channels_first(u), tuple(u.shape[1:-1])
        columns, parts = [], []
        for level, sides in enumerate(self.level_grids(grid)):
            part, index = self._chosen(rest.flatten(2).mT, level)
            columns.append(index)
            parts.append(self._spread(part, sides))
            if level < self.levels - 1:
                rest = self.down[level](rest - parts[-1])
        terms = {"temperature": self._sharpness().mean().detach()}
        out = channels_last(self._restored(parts))
        return Flat(out, torch.cat(columns, dim=1), u.new_zeros(()), terms)

    def encode_grid(self, u: Tensor) -> Tensor:
        """Return the indices ``(B, L, m)`` of the nearest codes."""
        rest, grid = channels_first(u), tuple(u.shape[1:-1])
        columns = []
        for level, sides in enumerate(self.level_grids(grid)):
            columns.append(self._nearest(rest.flatten(2).mT, level))
            if level < self.levels - 1:
                part = self._spread(self._codes(columns[-1], level), sides)
                rest = self.down[level](rest - part)
        return torch.cat(columns, dim=1)

    def decode_grid(self, indices: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return ``(B, *grid, d)``: the levels from coarse to fine."""
        columns = torch.split(indices, self._counts(grid), dim=1)
        sides = self.level_grids(grid)
        parts = [self._spread(self._codes(c, i), sides[i]) for i, c in enumerate(columns)]
        return channels_last(self._restored(parts))

    def lookup_grid(self, indices: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return the codes ``(B, L, d)`` of ``indices (B, L, m)``."""
        columns = enumerate(torch.split(indices, self._counts(grid), dim=1))
        return torch.cat([self._codes(column, level) for level, column in columns], dim=1)

    def update_grid(self, u: Tensor, indices: Tensor, valid: Tensor) -> None:
        """Follow the codes' frequencies; at times reassign those that never occur.

        Items with a latent that is not finite are left out.
        """
        fine = indices[valid.flatten(1).all(1)]
        columns = torch.split(fine, self._counts(tuple(u.shape[1:-1])), dim=1)
        counts = torch.stack([self._histogram(column) for column in columns])
        counts, skipped = sum_over_ranks(counts, (~valid).sum().float())
        self.nonfinite += skipped
        if not bool(counts.sum() > 0):
            return
        self.updates += 1
        share = counts / counts.sum(-1, keepdim=True).clamp(min=1)
        self.frequencies.lerp_(share, 1 - self.decay)
        if self.restart_every and int(self.updates) % self.restart_every == 0:
            tables = self.codebook.float().flatten(0, 1)
            size = tables.shape[1]
            codes = reassign_unused(tables, self.frequencies.flatten(0, 1), threshold=NEVER * size)
            self.codebook.copy_(codes.view_as(self.codebook))

    @property
    def has_state(self) -> bool:
        """The frequencies follow the data."""
        return True

    # ---------------------------------------------------------------------------------------------

    def _counts(self, grid: tuple[int, ...]) -> list[int]:
        return [positions(sides) for sides in self.level_grids(grid)]

    def _sharpness(self) -> Tensor:
        """Return t ``(levels, m)``, at least ``FLOOR``, with a gradient below it too."""
        t = self.temperature.float()
        return t + (t.clamp(min=FLOOR) - t).detach()

    def _logits(self, rows: Tensor, level: int) -> Tensor:
        """Return ``(B, n, m, K)`` of ``rows (B, n, d)``."""
        codes = self.codebook[level].float()
        count, size, width = codes.shape
        x = rows.reshape(*rows.shape[:-1], count, width)
        products = torch.einsum("bnmd,mkd->bnmk", x, codes)
        distance = x.square().sum(-1, keepdim=True) + codes.square().sum(-1) - 2 * products
        return -distance * self._sharpness()[level, :, None] / math.sqrt(size)

    def _nearest(self, rows: Tensor, level: int) -> Tensor:
        """Return the indices ``(B, n, m)`` of the codes nearest to ``rows (B, n, d)``."""
        codes = self.codebook[level].detach().float()
        pieces = rows.detach().reshape(-1, *codes.shape[::2]).transpose(0, 1)
        index = nearest_code(pieces, codes)[1].T
        return index.reshape(*rows.shape[:-1], codes.shape[0])

    def _chosen(self, rows: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Return codes ``(B, n, d)`` with the softmax's gradient, and indices ``(B, n, m)``."""
        logits = self._logits(rows, level)
        if self.training:
            logits = self._dropped(logits, level)
            uniform = torch.rand_like(logits).clamp(min=1e-20)
            logits = logits - (-uniform.log()).clamp(min=1e-20).log()  # Gumbel noise
            index = logits.argmax(-1)
        else:
            index = self._nearest(rows, level)
        codes = self.codebook[level].detach().float()
        soft = torch.einsum("bnmk,mkd->bnmd", logits.softmax(-1), codes).flatten(2)
        return self._codes(index, level) + (soft - soft.detach()), index

    def _dropped(self, logits: Tensor, level: int) -> Tensor:
        """Leave out codes at random: ``u**a < frequency``, a from log2 K (none used) to 1 (all)."""
        if not self.drop_frequent:
            return logits
        frequency = self.frequencies[level]
        used = (frequency > NEVER).float().mean()
        bits = math.log2(max(frequency.shape[-1], 2))
        power = bits - (bits - 1) * used**2
        return logits.masked_fill(torch.rand_like(logits) ** power < frequency, -1e9)

    def _codes(self, indices: Tensor, level: int) -> Tensor:
        """Return ``(B, n, d)`` of ``indices (B, n, m)``; zeros at -1."""
        tables = self.codebook[level].float()
        starts = torch.arange(tables.shape[0], device=indices.device) * tables.shape[1]
        codes = F.embedding(indices.clamp(min=0) + starts, tables.flatten(0, 1))
        return torch.where(indices[..., None] >= 0, codes, 0.0).flatten(2)

    def _spread(self, rows: Tensor, sides: tuple[int, ...]) -> Tensor:
        return rows.mT.reshape(-1, self.code_dim, *sides).contiguous()

    def _restored(self, parts: list[Tensor]) -> Tensor:
        """Return the sum ``(B, d, *grid)`` of the levels' ``parts``, from coarse to fine."""
        out = parts[-1]
        for level in range(self.levels - 2, -1, -1):
            part = parts[level]
            out = part + self.up[level](F.interpolate(out, size=part.shape[2:], mode="nearest"))
        return out

    def _histogram(self, column: Tensor) -> Tensor:
        """Return how often each code occurs in ``column (B, n, m)``: ``(m, K)`` float32."""
        size = self.codebook_sizes[0]
        flat = column.flatten(0, 1).T
        return torch.stack([torch.bincount(c[c >= 0], minlength=size).float() for c in flat])

    @staticmethod
    def _check_options(width: int, levels: int, codebooks: int, axes: int) -> None:
        ranges = {
            "levels": (levels, 1, 16),
            "codebooks": (codebooks, 1, 4096),
            "axes": (axes, 1, 3),
        }
        for option, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise ConfigError(
                    f"McQuic: expected {option} in {low}..{high}; got {value}. Correct it."
                )
        if width % codebooks:
            raise ConfigError(
                f"McQuic: expected a width that {codebooks} codebooks can share; got {width}. "
                "Set dim or code_dim to a multiple."
            )
