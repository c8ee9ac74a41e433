"""One codebook for every token of a fixed grid, learned after the autoencoder.

Reference:
    Zhang et al., Quantize-then-Rectify: Efficient VQ-VAE Training, 2025,
    https://arxiv.org/abs/2507.10547, section 3 (one codebook per token, reset, rectifier).
    Differs from the paper: a code is unused relative to the mean count, and resets come after a
    number of updates, not of epochs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError, DataError, ShapeError, unknown_name
from tokenizers_vq.functional.distributed import sum_over_ranks
from tokenizers_vq.functional.reassign import reassign_unused
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.flat import Flat, mean_square
from tokenizers_vq.quantizers.grid import (
    GridConv,
    GridQuantizer,
    channels_first,
    channels_last,
    positions,
)


class PerPosition(GridQuantizer):
    """Vector quantization with a codebook of its own for each of T tokens.

    The latents ``(B, *grid, D)``, channels first, are cut into T equal pieces in memory order: a
    piece is a run of neighbouring positions of one channel, or of several whole channels. Made for
    latents of an autoencoder that is trained already: the codebooks follow the latents, and no
    gradient reaches the encoder unless asked for. Call ``fit`` first: codes start as those of
    latents with mean 0 and variance 1, and learn little where none is the nearest.

    Args:
        dim: latent width D.
        grid: sides of the latents' grid.
        tokens: number of pieces T.
        codebook_size: codes K of each codebook.
        codebook_weight: pulls codes to their pieces.
        gradient: pass the output's gradient straight through to the latents.
        restart_every: updates between two resets of unused codes; 0 never resets.
        restart_threshold: a code is unused below this share of the mean count since the last reset.
        restart_share: at most this share of a codebook is reset.
        restart_noise: standard deviation of what a reset adds to the copy of a much used code.
        rectifier: what the decoded latents pass through: None, ``"conv"`` for two residual
            convolutions, or a module on ``(B, D, *grid)``.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, T, 1)

    Terms:
        ``codebook``, the mean over tokens and dimensions.

    Raises:
        ConfigError: the latents cannot be cut into T equal pieces, or an option is none of its
            choices.

    Example:
        >>> q = PerPosition(dim=32, grid=[8, 8], tokens=512, codebook_size=16)
        >>> q(torch.zeros(2, 8, 8, 32)).indices.shape
        torch.Size([2, 512, 1])
    """

    conventions = (*GridQuantizer.conventions, "grid")
    float32_buffers = ("counts", "nonfinite", "updates")
    counts: Tensor
    nonfinite: Tensor
    updates: Tensor

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int,
        *,
        grid: Sequence[int],
        tokens: int,
        codebook_size: int,
        codebook_weight: float = 1.0,
        gradient: bool = False,
        restart_every: int = 1000,
        restart_threshold: float = 0.01,
        restart_share: float = 0.2,
        restart_noise: float = 0.1,
        rectifier: str | nn.Module | None = None,
    ) -> None:
        super().__init__(dim, dim, (codebook_size,))
        self._check_sizes({"grid side": tuple(grid), "number of tokens": (tokens,)})
        self.grid = tuple(grid)
        self.axes = len(self.grid)
        self.tokens = tokens
        total = dim * positions(self.grid)
        if total % tokens or self.axes not in (1, 2, 3):
            raise ConfigError(
                f"PerPosition: expected tokens that divide the {total} numbers of latents of width "
                f"{dim} on {self.grid}, a grid of 1 to 3 axes; got {tokens}. Choose a divisor."
            )
        self.code_dim = total // tokens
        self.codebook_weight = codebook_weight
        self.gradient = gradient
        self.restart_every = restart_every
        self.restart_threshold = restart_threshold
        self.restart_share = restart_share
        self.restart_noise = restart_noise
        self.codebook = nn.Parameter(torch.randn(tokens, codebook_size, self.code_dim))
        self.rectifier = self._made(rectifier)
        self.register_buffer("counts", torch.zeros(tokens, codebook_size))
        self.register_buffer("nonfinite", torch.zeros(()))
        self.register_buffer("updates", torch.zeros(()))

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Start each codebook at pieces of ``latents``, the same sample of them on every rank.

        With fewer items than codes they repeat, each a little moved.

        Args:
            latents: ``(B, *grid, D)``; those with a number that is not finite are left out.

        Raises:
            ShapeError: they have another shape, grid or dtype.
            DataError: no item is left.
        """
        self._check(latents, None)
        u, valid = self._latents(latents.detach())
        pieces = self._cut(u[valid.flatten(1).all(1)])
        if not pieces.shape[0]:
            raise DataError(
                "PerPosition.fit: expected at least one finite item; got none. "
                "Pass latents (B, *grid, D) of what the encoder makes."
            )
        generator = torch.Generator().manual_seed(0)
        size, count = self.codebook_sizes[0], pieces.shape[0]
        rows = torch.rand(self.tokens, count, generator=generator).argsort(1)
        rows = rows[:, torch.arange(size) % count].to(u.device)
        codes = pieces.transpose(0, 1).gather(1, rows[..., None].expand(-1, -1, self.code_dim))
        noise = torch.randn(codes.shape, generator=generator).to(codes)
        spread = pieces.std(dim=(0, 2), correction=0)[:, None, None]
        again = (torch.arange(size, device=u.device) >= count)[:, None]
        codes = codes + torch.where(again, self.restart_noise * spread * noise, 0.0)
        self.codebook.copy_(codes)

    def token_count(self, grid: tuple[int, ...]) -> int:
        """Return T."""
        return self.tokens

    def latent_grid(self, index_grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the grid the head is made for.

        Raises:
            ShapeError: ``index_grid`` is not ``(T,)``.
        """
        if index_grid != (self.tokens,):
            raise ShapeError(
                f"PerPosition: expected indices of {self.tokens} tokens; got a grid of "
                f"{index_grid}. Keep all tokens of an item."
            )
        return self.grid

    def quantize_grid(self, u: Tensor, valid: Tensor) -> Flat:
        """Quantize every piece with its own codebook."""
        pieces = self._cut(u)
        with torch.no_grad():
            indices = self._search(pieces)
        codes = self._codes(indices)
        use = self._whole(valid)
        width = self.code_dim
        codebook = mean_square(
            codes.reshape(-1, width), pieces.detach().reshape(-1, width), use.reshape(-1)
        )
        out = straight_through(pieces, codes) if self.gradient else codes.detach()
        out = self._rectified(self._joined(out))
        return Flat(out, indices, self.codebook_weight * codebook, {"codebook": codebook.detach()})

    def encode_grid(self, u: Tensor) -> Tensor:
        """Return the indices ``(B, T, 1)`` of the nearest codes."""
        return self._search(self._cut(u))

    def decode_grid(self, indices: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return ``(B, *grid, D)``; the piece of index -1 is zero before the rectifier."""
        return self._rectified(self._joined(self.lookup_grid(indices, grid)))

    def lookup_grid(self, indices: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return the codes ``(B, T, d)`` of ``indices (B, T, 1)``."""
        return torch.where(indices >= 0, self._codes(indices.clamp(min=0)), 0.0)

    def update_grid(self, u: Tensor, indices: Tensor, valid: Tensor) -> None:
        """Count the codes; at times reset the unused ones, the same way on every rank."""
        use = (indices[..., 0] >= 0) & self._whole(valid)
        flat = self._place(indices.clamp(min=0))[use]
        counts = torch.bincount(flat, minlength=self.counts.numel()).float()
        counts, skipped = sum_over_ranks(counts, (~valid).sum().float())
        self.nonfinite += skipped
        if not bool(counts.sum() > 0):
            return
        self.updates += 1
        self.counts += counts.view_as(self.counts)
        if self.restart_every and int(self.updates) % self.restart_every == 0:
            codes = reassign_unused(
                self.codebook.float(),
                self.counts,
                threshold=self.restart_threshold,
                share=self.restart_share,
                noise=self.restart_noise,
                generator=torch.Generator().manual_seed(int(self.updates)),
            )
            self.codebook.copy_(codes)
            self.counts.zero_()

    @property
    def has_state(self) -> bool:
        """Whether ``update`` counts codes in order to reset the unused ones."""
        return self.restart_every > 0

    def _check_grid(self, grid: tuple[int, ...], where: str) -> None:
        if grid != self.grid:
            raise ShapeError(
                f"{where}: expected latents on {self.grid}, the grid its codebooks are for; "
                f"got {grid}. Crop or resize the signal."
            )

    def _cut(self, u: Tensor) -> Tensor:
        """Return the pieces ``(B, T, d)`` of ``u (B, *grid, D)``."""
        return channels_first(u).reshape(u.shape[0], self.tokens, self.code_dim)

    def _joined(self, pieces: Tensor) -> Tensor:
        return channels_last(pieces.reshape(pieces.shape[0], self.dim, *self.grid))

    def _whole(self, valid: Tensor) -> Tensor:
        """Return ``(B, T)``: pieces without a number of a latent that was not finite."""
        numbers = valid[:, None].expand(-1, self.dim, *self.grid)
        return numbers.reshape(valid.shape[0], self.tokens, self.code_dim).all(-1)

    def _search(self, pieces: Tensor) -> Tensor:
        """Return the indices ``(B, T, 1)`` of the nearest codes."""
        index = nearest_code(pieces.transpose(0, 1), self.codebook.float())[1]
        return index.T[..., None].contiguous()

    def _codes(self, indices: Tensor) -> Tensor:
        return F.embedding(self._place(indices), self.codebook.float().flatten(0, 1))

    def _place(self, indices: Tensor) -> Tensor:
        """Return ``(B, T)``: the rows of all codebooks one after the other."""
        starts = torch.arange(self.tokens, device=indices.device) * self.codebook_sizes[0]
        return indices[..., 0] + starts

    def _rectified(self, latents: Tensor) -> Tensor:
        if self.rectifier is None:
            return latents
        return channels_last(self.rectifier(channels_first(latents)).float())

    def _made(self, rectifier: str | nn.Module | None) -> nn.Module | None:
        if rectifier is None or isinstance(rectifier, nn.Module):
            return rectifier
        if rectifier != "conv":
            raise unknown_name("PerPosition rectifier", rectifier, ("conv",))
        return ConvRectifier(self.dim, self.axes)


class ConvRectifier(nn.Module):
    """Two convolutions that add a correction to decoded latents; it starts as the identity.

    Args:
        dim: latent width D.
        axes: rank of the grid, 1 to 3.
    """

    def __init__(self, dim: int, axes: int) -> None:
        super().__init__()
        self.conv1 = GridConv(dim, axes)
        self.conv2 = GridConv(dim, axes)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, h: Tensor) -> Tensor:
        """Return ``(B, D, *grid)`` float32 of ``h (B, D, *grid)``."""
        correction: Tensor = self.conv2(F.silu(self.conv1(h)))
        return h + correction
