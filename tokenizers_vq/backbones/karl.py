"""KARL: one pass that reads the wished error and says which of its tokens are needed.

Reference:
    Duggal et al., Single-pass Adaptive Image Tokenization for Minimum Program Search, 2025,
    https://arxiv.org/abs/2507.07995, section 3.
    Differs: wished errors of the first forward in training are drawn evenly from the small ones;
    the authors make those that were reached rarer as training goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizers_vq.backbones.base import Decoder, Encoder, TokenDecoder, TokenEncoder
from tokenizers_vq.backbones.distilled import (
    CodePainter,
    ImageRows,
    Rows,
    check_base,
    joined,
    one,
    visible,
)
from tokenizers_vq.backbones.transformer import EPS, init_weights, learned
from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.types import Quantized, Reconstruction, SignalSpec

if TYPE_CHECKING:
    from tokenizers_vq.tokenizer import Tokenizer

ERRORS = (
    *(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.09, 0.1),
    *(0.12, 0.14, 0.16, 0.18, 0.2, 0.24, 0.28, 0.32, 0.38),
)  # mean absolute errors that can be wished for, for samples in [0, 1]
SMALL = 0.04  # those up to here are wished for when the complexity of a picture is estimated
HALTED = 0.75  # probability of not being needed, above which a token is left out
HALT_WIDTH = 512
STAGES = ("codes", "pixels")


class KARLEncoder(TokenEncoder):
    """Encoder of one pass: of ``budget`` latents it says which are not needed for an error.

    Args:
        dim: latent width D.
        signal: what the pixels mean.
        base: config of the base's encoder, see ``distilled``; or that encoder.
        width: W of the rows.
        layers: blocks.
        heads: attention heads.
        size: pixels along each side of a picture.
        latents: the largest number of tokens.
        budget: tokens where no number is asked for.
        target_error: wished error where none is asked for.
        table: side of the table of positions, of which the grid takes every so many.

    Shapes:
        x (B, C, size, size) -> z (B, n, D), n of 1..latents

    Raises:
        ConfigError: the sizes do not fit each other.

    Reference:
        Duggal et al., 2025, https://arxiv.org/abs/2507.07995, section 3 and figure 3.
    """

    targets_error = True

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int,
        signal: SignalSpec,
        base: Encoder | Sequence[Encoder],
        *,
        width: int = 1024,
        layers: int = 8,
        heads: int = 8,
        size: int = 256,
        latents: int = 512,
        budget: int = 256,
        target_error: float = 0.05,
        table: int = 64,
    ) -> None:
        base = one("KARLEncoder", base)
        grid = check_base("KARLEncoder", base, size)
        if not 1 <= budget <= latents:
            raise ConfigError(
                f"KARLEncoder: expected a budget of 1..{latents}; got {budget}. "
                "Correct the backbone config."
            )
        super().__init__(dim, base.stride, signal)
        self.size = (size, size)
        self.grid_shape = grid
        self.counts = tuple(range(1, latents + 1))
        self.budget, self.target_error = budget, target_error
        self.image = ImageRows(width, signal, base)
        self.position = nn.Parameter(torch.randn(width, table, table) * width**-0.5)
        self.latents = learned(latents, width)
        errors = torch.tensor(ERRORS)
        self.errors = nn.Parameter(errors[:, None].repeat(1, width))
        self.register_buffer("bins", errors, persistent=False)
        self.norm_in = nn.LayerNorm(width, eps=EPS)
        self.rows = Rows(width, layers, heads)
        self.norm_out = nn.LayerNorm(width, eps=EPS)
        self.project = nn.Linear(width, dim)
        self.norm_halt = nn.LayerNorm(width, eps=EPS)
        self.halt = nn.Sequential(nn.Linear(width, HALT_WIDTH), nn.Tanh(), nn.Linear(HALT_WIDTH, 1))
        init_weights(self.project)
        init_weights(self.halt, std=0.02)

    bins: Tensor

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return the latent width of a base that names none: the one of this encoder."""
        return dim

    @property
    def num_tokens(self) -> int:
        """Tokens where no number is asked for: the budget, of at most ``counts[-1]``."""
        return self.budget

    def forward(self, x: Tensor, num_tokens: int | None = None) -> Tensor:
        """Return latents ``(B, num_tokens, D)`` for the error that is wished by default."""
        self.check_signal(x)
        wished = self.bins.new_full((x.shape[0],), self.target_error)
        return self.attend(x, self.check_count(num_tokens), wished)[0]

    def allocate(
        self, x: Tensor, target_error: float | None = None, num_tokens: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return latents ``(B, n, D)`` and which of them are needed, ``(B, n)`` bool.

        Args:
            x: ``(B, C, size, size)``.
            target_error: wished mean absolute error, in units of the signal's range; the smallest
                known one that is not below it, or else the largest, is what the encoder is told.
            num_tokens: n, at most so many; None for the budget.

        Raises:
            ShapeError: ``x`` has another shape, or there is no such number.
        """
        self.check_signal(x)
        wished = self.target_error if target_error is None else target_error
        count = self.check_count(num_tokens)
        z, halt = self.attend(x, count, self.bins.new_full((x.shape[0],), wished))
        return z, halt.sigmoid() <= HALTED

    def attend(
        self, x: Tensor, count: int, wished: Tensor, base: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return latents ``(B, count, D)`` and the logits ``(B, count)`` of not being needed.

        Args:
            x: pictures.
            count: how many.
            wished: ``(B,)`` wished errors.
            base: the base's latents ``(B, N, E)``, where they are known.
        """
        latents, patches = self.image(x, base)
        rows = torch.cat([patches, latents], dim=-1) + on_grid(self.position, self.grid_shape)
        bins = torch.searchsorted(self.bins, wished.float()).clamp(max=len(self.bins) - 1)
        asked = self.errors[bins][:, None]  # (B, 1, W)
        tokens = self.latents[:count].expand(x.shape[0], -1, -1)
        h = self.norm_in(torch.cat([asked, rows, tokens], dim=1))
        h = self.rows(h, keep=slice(1 + rows.shape[1], None))
        return self.project(self.norm_out(h)), self.halt(self.norm_halt(h))[..., 0]


class KARLDecoder(TokenDecoder):
    """Decoder of any of the tokens to the codes of the base, and to pixels.

    Args:
        dim: latent width D.
        signal: what the pixels mean.
        base: config of the base's decoder, see ``distilled``; or that decoder.
        width: W of the rows.
        layers: blocks.
        heads: attention heads.
        size: pixels along each side of a picture.
        latents: the largest number of tokens.
        codes: size of the base's codebook.
        table: side of the table of positions.
        stage: what training teaches: ``"codes"`` of a base that stays as it is, or ``"pixels"``.
        budgets: numbers of tokens of the first forward in training; null for 16, 32, .. 368, those
            of them that are there.

    Shapes:
        z_q (B, n, D) -> x_hat (B, C, size, size)

    Raises:
        ConfigError: the sizes do not fit each other, or there is no such stage.

    Reference:
        Duggal et al., 2025, https://arxiv.org/abs/2507.07995, section 3.
    """

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int,
        signal: SignalSpec,
        base: Decoder | Sequence[Decoder],
        *,
        width: int = 1024,
        layers: int = 8,
        heads: int = 8,
        size: int = 256,
        latents: int = 512,
        codes: int = 1024,
        table: int = 64,
        stage: str = "codes",
        budgets: Sequence[int] | None = None,
    ) -> None:
        base = one("KARLDecoder", base)
        grid = check_base("KARLDecoder", base, size)
        if stage not in STAGES:
            raise unknown_name("karl stage", stage, STAGES)
        super().__init__(dim, base.stride, signal)
        self.size = (size, size)
        self.grid_shape = grid
        self.counts = tuple(range(1, latents + 1))
        self.stage = stage
        self.budgets = tuple(budgets or range(16, min(368, latents) + 1, 16))
        self.position = nn.Parameter(torch.randn(width, table, table) * width**-0.5)
        self.mask_token = learned(1, 1, width)
        self.latent_position = learned(latents, width)
        self.embed = nn.Linear(dim, width)
        init_weights(self.embed)
        self.norm_in = nn.LayerNorm(width, eps=EPS)
        self.rows = Rows(width, layers, heads)
        self.norm_out = nn.LayerNorm(width, eps=EPS)
        self.painter = CodePainter(width, codes, base)

    inner_dim = staticmethod(KARLEncoder.inner_dim)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the base's last layer."""
        return self.painter.base.last_layer

    def forward(self, z_q: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        """Return pictures ``(B, C, size, size)`` of latents ``(B, n, D)``."""
        self.check_latents(z_q)
        return self.picture(self.logits(z_q, mask))

    def picture(self, logits: Tensor) -> Tensor:
        """Return the pictures ``(B, C, size, size)`` of logits ``(B, N, codes)``."""
        return self.painter.paint(self.painter.mean_code(logits), self.grid_shape)

    def logits(self, z_q: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits ``(B, N, codes)`` over the base's codes at each position."""
        rows = (self.mask_token + on_grid(self.position, self.grid_shape)).expand(
            z_q.shape[0], -1, -1
        )
        tokens = self.embed(z_q) + self.latent_position[: z_q.shape[1]]
        h = self.norm_in(torch.cat([rows, tokens], dim=1))
        h = self.rows(h, visible(mask, rows.shape[1]), slice(rows.shape[1]))
        logits: Tensor = self.painter(self.norm_out(h))
        return logits

    def training_pass(self, tokenizer: Tokenizer, x: Tensor, step: int) -> Reconstruction:
        """Return what the two forwards of a training step compare.

        The first has T tokens, drawn from ``budgets``, and a small wished error; it reaches the
        error e. The second has all tokens that there are and the wish e; those behind T should not
        be needed, all others should. ``terms`` are ``halt``, the binary cross entropies of that;
        in stage ``"codes"``, in which the base learns nothing, ``nll`` and ``code`` as in
        ``ALITDecoder``. In stage ``"pixels"`` both pictures are compared with ``x``.

        Args:
            tokenizer: this decoder's.
            x: ``(B, C, size, size)``.
            step: optimizer steps taken so far.
        """
        encoder = tokenizer.encoder
        if not isinstance(encoder, KARLEncoder):
            raise ConfigError(
                f"KARLDecoder: expected a KARLEncoder to train with; got "
                f"{type(encoder).__name__}. Choose backbone karl for both."
            )
        encoder.check_signal(x)
        lesson = _Lesson(self, encoder, tokenizer.quantizer, x)
        count = self.budgets[int(torch.randint(len(self.budgets), ()))]
        small = encoder.bins[encoder.bins <= SMALL + 1e-6]
        wished = small[torch.randint(len(small), (x.shape[0],), device=small.device)]
        reached = lesson.forward(count, wished, count, hide=False)
        lesson.forward(encoder.counts[-1], reached, count, hide=True)
        return lesson.result()


class _Lesson:
    """The two forwards of a training step, and what they are to learn."""

    def __init__(
        self, decoder: KARLDecoder, encoder: KARLEncoder, quantize: nn.Module, x: Tensor
    ) -> None:
        self.decoder, self.encoder, self.quantize, self.x = decoder, encoder, quantize, x
        learns = decoder.stage == "pixels"
        self.base = None if learns else encoder.image.latents(x)
        self.made: list[tuple[Tensor, Quantized, Tensor]] = []
        self.terms: dict[str, list[Tensor]] = {"halt": []}

    def forward(self, count: int, wished: Tensor, needed: int, *, hide: bool) -> Tensor:
        """Run one of them and return the error ``(B,)`` it reaches.

        Args:
            count: tokens.
            wished: errors ``(B,)``.
            needed: how many of the tokens should be needed, the first ones.
            hide: leave out tokens that the encoder says are not needed.
        """
        z, halt = self.encoder.attend(self.x, count, wished, self.base)
        quantized: Quantized = self.quantize(z)
        mask = halt.detach().sigmoid() <= HALTED if hide else None
        logits = self.decoder.logits(quantized.z_q, mask)
        parts = [(halt[:, :needed], 0.0), (halt[:, needed:], 1.0)]
        for part, target in parts:
            if part.shape[1]:
                loss = F.binary_cross_entropy_with_logits(part, torch.full_like(part, target))
                self.terms["halt"].append(loss)
        x_hat = self._picture(logits)
        self.made.append((z, quantized, x_hat))
        low, high = self.decoder.signal.value_range
        return (x_hat.detach() - self.x).abs().flatten(1).mean(1) / (high - low)

    def _picture(self, logits: Tensor) -> Tensor:
        if self.base is None:
            return self.decoder.picture(logits)
        painter = self.decoder.painter
        losses = painter.losses(logits, painter.nearest(self.base))
        for name, loss in zip(("nll", "code"), losses, strict=True):
            self.terms.setdefault(name, []).append(loss)
        with torch.no_grad():
            return self.decoder.picture(logits)

    def result(self) -> Reconstruction:
        """Return both as one batch."""
        terms = {name: torch.stack(losses).sum() for name, losses in self.terms.items()}
        quantized = joined([quantized for _, quantized, _ in self.made])
        z = torch.cat([z for z, _, _ in self.made], dim=1)
        x_hat = torch.cat([x_hat for _, _, x_hat in self.made])
        return Reconstruction(x_hat, z, quantized, terms, torch.cat([self.x, self.x]))


def on_grid(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return rows ``(1, N, W)`` of a table ``(W, h, w)``, resized to ``grid`` by nearest cells."""
    return F.interpolate(table[None], size=grid).flatten(2).transpose(1, 2)
