"""ALIT: an encoder that goes over the picture again and again, with more tokens each time.

Reference:
    Duggal et al., Adaptive Length Image Tokenization via Recurrent Allocation, 2024,
    https://arxiv.org/abs/2411.02393, section 3 and figure 2.
    Differs: no dynamic halting outside of training, where it draws random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

WEIGHTS = (2.5, 2.0, 1.5, 1.25, 1.0, 1.0, 1.0, 1.0)
STAGES = ("codes", "pixels")
Watch = Callable[[int, Tensor], Tensor | None]


class ALITEncoder(TokenEncoder):
    """Recurrent encoder: every rollout reads the picture again and adds latents.

    A rollout appends ``per_rollout`` new latents to the rows of the picture and to the latents so
    far, and sends all of them through the same blocks. After k rollouts there are
    ``k * per_rollout`` latents.

    Args:
        dim: latent width D.
        signal: what the pixels mean.
        base: config of the base's encoder, see ``distilled``; or that encoder.
        width: W of the rows.
        layers: blocks.
        heads: attention heads.
        size: pixels along each side of a picture.
        per_rollout: new latents of a rollout.
        rollouts: how many there are.
        halting: learn a row that stands for parts of the picture that are already well described;
            see ``ALITDecoder.training_pass``.

    Shapes:
        x (B, C, size, size) -> z (B, k * per_rollout, D)

    Raises:
        ConfigError: the sizes do not fit each other.

    Reference:
        Duggal et al., 2024, https://arxiv.org/abs/2411.02393, section 3.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        base: Encoder | Sequence[Encoder],
        *,
        width: int = 1024,
        layers: int = 8,
        heads: int = 8,
        size: int = 256,
        per_rollout: int = 32,
        rollouts: int = 8,
        halting: bool = True,
    ) -> None:
        base = one("ALITEncoder", base)
        grid = check_base("ALITEncoder", base, size)
        super().__init__(dim, base.stride, signal)
        self.size = (size, size)
        self.per_rollout = per_rollout
        self.counts = tuple(per_rollout * (i + 1) for i in range(rollouts))
        self.positions = grid[0] * grid[1]
        self.image = ImageRows(width, signal, base)
        self.cls = learned(1, width)
        self.position = learned(self.positions + 1, width)
        self.latents = learned(per_rollout, width)
        self.latent_position = learned(per_rollout, width)
        self.rollout_position = learned(rollouts, per_rollout, width)
        self.mask_token = learned(1, 1, width) if halting else None
        self.norm_in = nn.LayerNorm(width, eps=EPS)
        self.norm_again = nn.LayerNorm(width, eps=EPS)
        self.rows = Rows(width, layers, heads)
        self.norm_out = nn.LayerNorm(width, eps=EPS)
        self.project = nn.Linear(width, dim)
        init_weights(self.project)

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return the latent width of a base that names none: the one of this encoder."""
        return dim

    def forward(self, x: Tensor, num_tokens: int | None = None) -> Tensor:
        """Return latents ``(B, num_tokens, D)`` after as many rollouts as they need."""
        self.check_signal(x)
        count = self.check_count(num_tokens)
        return self.roll(x, count // self.per_rollout)

    def roll(
        self, x: Tensor, rollouts: int, watch: Watch | None = None, base: Tensor | None = None
    ) -> Tensor:
        """Return the latents ``(B, rollouts * per_rollout, D)`` of the last rollout.

        Args:
            x: pictures.
            rollouts: how many.
            watch: called with the number of each rollout and its latents; returns which positions
                ``(B, N)`` bool the next rollouts need not see, or None.
            base: the base's latents ``(B, N, E)``, where they are known.
        """
        latents, patches = self.image(x, base)
        rows = F.normalize(torch.cat([latents, patches], dim=-1), dim=-1)
        rows = torch.cat([self.cls.expand(x.shape[0], 1, -1), rows], dim=1) + self.position
        h = self.norm_in(torch.cat([rows, self._fresh(0, x.shape[0])], dim=1))
        z: Tensor = h
        for i in range(rollouts):
            last = i == rollouts - 1
            tokens = slice(self.positions + 1, None)
            h = self.rows(h, keep=tokens if last else None)
            if last or watch is not None:
                z = self.project(self.norm_out(h if last else h[:, tokens]))
            seen = None if watch is None else watch(i, z)
            if not last:
                h = h if seen is None else self._without(h, seen)
                h = self.norm_again(torch.cat([h, self._fresh(i + 1, x.shape[0])], dim=1))
        return z

    def _fresh(self, rollout: int, batch: int) -> Tensor:
        rows = self.latents + self.latent_position + self.rollout_position[rollout]
        return rows.expand(batch, -1, -1)

    def _without(self, h: Tensor, seen: Tensor) -> Tensor:
        """Return rows whose positions ``seen (B, N)`` stand for nothing but their place."""
        if self.mask_token is None:
            return h
        blank = self.mask_token + self.position[1:]
        start, end = 1, self.positions + 1
        rows = torch.where(seen[..., None], blank, h[:, start:end])
        return torch.cat([h[:, :start], rows, h[:, end:]], dim=1)


class ALITDecoder(TokenDecoder):
    """Decoder of the tokens of any number of rollouts to the codes of the base, and to pixels.

    Args:
        dim: latent width D.
        signal: what the pixels mean.
        base: config of the base's decoder, see ``distilled``; or that decoder.
        width: W of the rows.
        layers: blocks.
        heads: attention heads.
        size: pixels along each side of a picture.
        per_rollout: latents of a rollout.
        rollouts: how many there are.
        codes: size of the base's codebook.
        stage: what training teaches: ``"codes"`` of a base that stays as it is, or ``"pixels"``.
        rollout_weights: of the likelihood of each rollout in the first stage.
        halting_threshold: probability of the base's own code above which a position may be left
            out of later rollouts in training; 1 for never.

    Shapes:
        z_q (B, n, D) -> x_hat (B, C, size, size), n a multiple of ``per_rollout``

    Raises:
        ConfigError: the sizes do not fit each other, or there is no such stage.

    Reference:
        Duggal et al., 2024, https://arxiv.org/abs/2411.02393, section 3 and appendix.
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
        per_rollout: int = 32,
        rollouts: int = 8,
        codes: int = 1024,
        stage: str = "codes",
        rollout_weights: Sequence[float] = WEIGHTS,
        halting_threshold: float = 0.55,
    ) -> None:
        base = one("ALITDecoder", base)
        grid = check_base("ALITDecoder", base, size)
        if stage not in STAGES:
            raise unknown_name("alit stage", stage, STAGES)
        super().__init__(dim, base.stride, signal)
        self.size = (size, size)
        self.grid_shape = grid
        self.per_rollout = per_rollout
        self.counts = tuple(per_rollout * (i + 1) for i in range(rollouts))
        self.stage = stage
        self.rollout_weights = tuple(rollout_weights)
        self.halting_threshold = halting_threshold
        self.cls = learned(1, width)
        self.position = learned(grid[0] * grid[1] + 1, width)
        self.mask_token = learned(1, 1, width)
        self.latent_position = learned(self.counts[-1], width)
        self.embed = nn.Linear(dim, width)
        init_weights(self.embed)
        self.norm_in = nn.LayerNorm(width, eps=EPS)
        self.rows = Rows(width, layers, heads)
        self.norm_out = nn.LayerNorm(width, eps=EPS)
        self.painter = CodePainter(width, codes, base)

    inner_dim = staticmethod(ALITEncoder.inner_dim)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the base's last layer."""
        return self.painter.base.last_layer

    def forward(self, z_q: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        """Return pictures ``(B, C, size, size)`` of latents ``(B, n, D)``."""
        self.check_latents(z_q)
        codes = self.painter.mean_code(self.logits(z_q, mask))
        return self.painter.paint(codes, self.grid_shape)

    def logits(self, z_q: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits ``(B, N, codes)`` over the base's codes at each position."""
        blank = self.mask_token.expand(z_q.shape[0], len(self.position) - 1, -1)
        rows = torch.cat([self.cls.expand(z_q.shape[0], 1, -1), blank], dim=1) + self.position
        tokens = self.embed(z_q) + self.latent_position[: z_q.shape[1]]
        h = self.norm_in(torch.cat([rows, tokens], dim=1))
        h = self.rows(h, visible(mask, rows.shape[1]), slice(1, rows.shape[1]))
        logits: Tensor = self.painter(self.norm_out(h))
        return logits

    def training_pass(self, tokenizer: Tokenizer, x: Tensor, step: int) -> Reconstruction:
        """Return what a training step compares.

        In stage ``"codes"``, all rollouts: ``terms`` are ``nll``, the sum over rollouts of their
        weighted mean negative log likelihoods of the base's codes, and ``code``, the sum of the
        mean squared errors of their mean codes; the base learns nothing and nothing is decoded.
        Positions whose own code has a probability p above the threshold are left out of later
        rollouts with that probability. In stage ``"pixels"``, the picture after one rollout; each
        has its turn.

        Args:
            tokenizer: this decoder's.
            x: ``(B, C, size, size)``.
            step: optimizer steps taken so far.
        """
        encoder = tokenizer.encoder
        if not isinstance(encoder, ALITEncoder):
            raise ConfigError(
                f"ALITDecoder: expected an ALITEncoder to train with; got "
                f"{type(encoder).__name__}. Choose backbone alit for both."
            )
        encoder.check_signal(x)
        if self.stage == "pixels":
            count = self.counts[step % len(self.counts)]
            z = encoder(x, num_tokens=count)
            quantized = tokenizer.quantizer(z)
            return Reconstruction(self(quantized.z_q), z, quantized)
        base = encoder.image.latents(x)
        lesson = _Lesson(self, tokenizer.quantizer, self.painter.nearest(base))
        encoder.roll(x, len(encoder.counts), lesson, base)
        return lesson.result(x)


class _Lesson:
    """Collects losses rollout by rollout, and says which positions are learned."""

    def __init__(self, decoder: ALITDecoder, quantize: nn.Module, target: Tensor) -> None:
        self.decoder, self.quantize, self.target = decoder, quantize, target
        self.z: list[Tensor] = []
        self.quantized: list[Quantized] = []
        self.losses: list[tuple[Tensor, Tensor]] = []

    def __call__(self, rollout: int, z: Tensor) -> Tensor | None:
        decoder = self.decoder
        quantized: Quantized = self.quantize(z)
        logits = decoder.logits(quantized.z_q)
        nll, code = decoder.painter.losses(logits, self.target)
        weights = decoder.rollout_weights
        self.losses.append((weights[min(rollout, len(weights) - 1)] * nll, code))
        self.z.append(z)
        self.quantized.append(quantized)
        if decoder.halting_threshold >= 1:
            return None
        with torch.no_grad():
            own = logits.softmax(-1).gather(-1, self.target[..., None])[..., 0]  # (B, N)
            return (own > decoder.halting_threshold) & (torch.rand_like(own) < own)

    def result(self, x: Tensor) -> Reconstruction:
        """Return all rollouts as one, their tokens behind each other."""
        nll, code = (torch.stack(part).sum() for part in zip(*self.losses, strict=True))
        quantized = joined(self.quantized)
        terms = {"nll": nll, "code": code}
        return Reconstruction(x.new_empty(0), torch.cat(self.z, dim=1), quantized, terms)
