"""A stack of quantizers, each on what the ones before it left over.

Reference:
    Zeghidour et al., SoundStream, 2021, https://arxiv.org/abs/2107.03312, algorithm 1 and
    section III.C (quantizer dropout);
    Lee et al., Autoregressive Image Generation using Residual Quantization, 2022,
    https://arxiv.org/abs/2203.01941, eq. 3-8 (one estimator around the sum).
    Differs from the former: the gradient; see ``Residual``.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import Flat, Tokens, mean_terms


class Residual(Quantizer):
    """Residual quantization: the output is the sum of the stages' codes.

    The search runs on detached sums, the losses of each stage see the latent minus those, and one
    straight-through estimator goes around the finished sum. So the gradient to the encoder is the
    identity at every depth, and the commitment of every stage reaches it. A stage's own linear
    maps learn through its own estimator.

    Args:
        dim: latent width D; None for ``code_dim``.
        stages: the quantizers, at least one, all of width ``code_dim``.
        code_dim: width the stages work in; None for ``dim``, or for the first stage's width.
        stage_scale: stage i works on its input divided by ``stage_scale**i``. For heads with a
            fixed grid (fsq, lfq) which would otherwise repeat the first stage: 1/2 for signs.
        stage_dropout: probability that an item of a training batch stops after a random number of
            stages, 1 to all. The dropped ones have index -1, no loss and no update.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, sum of the stages' K).
        ``decode`` takes any number of leading columns.

    Terms:
        Each term's mean over the stages, and term/i for stage i.

    Raises:
        ConfigError: there is no stage, or their widths differ.

    Example:
        >>> from tokenizers_vq.quantizers.vq import VectorQuantizer
        >>> q = Residual(dim=8, stages=[VectorQuantizer(8, codebook_size=16) for _ in range(4)])
        >>> q(torch.zeros(2, 5, 8)).indices.shape
        torch.Size([2, 5, 4])
    """

    nested = True

    def __init__(
        self,
        dim: int | None = None,
        *,
        stages: Sequence[Quantizer],
        code_dim: int | None = None,
        stage_scale: float = 1.0,
        stage_dropout: float = 0.0,
    ) -> None:
        if not stages:
            raise ConfigError("Residual: expected at least one stage; got none.")
        width = code_dim or dim or stages[0].dim
        widths = [stage.dim for stage in stages]
        if set(widths) != {width}:
            raise ConfigError(
                f"Residual: expected stages of width {width}; got {widths}. "
                "Give each stage that dim, or set code_dim."
            )
        sizes = tuple(size for stage in stages for size in stage.codebook_sizes)
        super().__init__(dim, width, sizes)
        self.stages = nn.ModuleList(stages)
        self.stage_scale = stage_scale
        self.stage_dropout = stage_dropout
        self._columns = [stage.num_codebooks for stage in stages]

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return the width of each stage: that of the whole."""
        return dim

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize stage by stage; one straight-through estimator around the sum."""
        depth = self._depth(tokens)
        out = torch.zeros_like(u)
        flats = []
        for i, (stage, scale) in enumerate(self._parts()):
            rest = (u - out.detach()) / scale
            active = depth > i
            inside = replace(tokens, valid=tokens.valid & active)
            flat = stage.quantize_rows(rest, rest.detach(), inside)
            out = out + torch.where(active[:, None], flat.out * scale, 0.0)
            flats.append(replace(flat, indices=torch.where(active[:, None], flat.indices, -1)))
        terms = mean_terms([flat.terms for flat in flats])
        for i, flat in enumerate(flats):
            terms |= {f"{name}/{i}": term for name, term in flat.terms.items()}
        indices = torch.cat([flat.indices for flat in flats], dim=1)
        loss = torch.stack([flat.loss for flat in flats]).mean()
        # Not straight_through(): a stage's map back to this width keeps its gradient in out.
        return Flat(out + (source - source.detach()), indices, loss, terms)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of all stages."""
        out = torch.zeros_like(u)
        columns = []
        for stage, scale in self._parts():
            columns.append(stage.encode_rows((u - out) / scale))
            out = out + stage.decode_rows(columns[-1]) * scale
        return torch.cat(columns, dim=1)

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the sums ``(N, d)`` of the codes of ``indices (N, K)``; -1 adds nothing."""
        out = self._anchor.new_zeros(indices.shape[0], self.code_dim, dtype=torch.float32)
        columns = torch.split(indices, self._columns, dim=1)
        for (stage, scale), column in zip(self._parts(), columns, strict=True):
            out = out + stage.decode_rows(column) * scale
        return out

    def code_update(self, u: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Replay the chain, stage by stage, on the stored indices and the codes as they are now.

        The optimizer has stepped since the forward: codes and linear maps that learn by gradient
        have moved, so the residuals differ from those of the forward by one small step. A stage
        passes on what its codes before its own update leave over, unless they were replaced.
        """
        rest, replaced = u, False
        columns = torch.split(indices, self._columns, dim=1)
        for (stage, scale), given in zip(self._parts(), columns, strict=True):
            row, column = rest / scale, given
            used = (column >= 0).any(-1)
            if replaced:  # an earlier stage started anew: these residuals never had a code
                column = torch.where(used[:, None], stage.encode_rows(row), -1)
            codes = stage.decode_rows(column)
            if stage.update_rows(row[used], column[used], skipped):
                replaced = True
                column = torch.where(used[:, None], stage.encode_rows(row), -1)
                codes = stage.decode_rows(column)
            rest = rest - codes * scale
        return replaced

    def complete(self, indices: Tensor) -> Tensor:
        """Return ``indices (..., k)``, a prefix of the stages, filled up with -1.

        Raises:
            ShapeError: there is no column.
        """
        if indices.ndim < 1 or indices.shape[-1] < 1:
            raise ShapeError(
                f"decode: expected indices of shape (B, *grid, 1 to {self.num_codebooks}); "
                f"got {tuple(indices.shape)}."
            )
        missing = self.num_codebooks - indices.shape[-1]
        if missing <= 0:
            return indices
        return torch.cat([indices, indices.new_full((*indices.shape[:-1], missing), -1)], dim=-1)

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The radices of the indices of all stages."""
        return tuple(radices for part, _ in self._parts() for radices in part.digits)

    @property
    def has_state(self) -> bool:
        """Whether ``update`` changes any stage."""
        return any(stage.has_state for stage, _ in self._parts())

    @property
    def learns_by_update(self) -> bool:
        """Whether any stage learns in ``update`` only."""
        return any(stage.learns_by_update for stage, _ in self._parts())

    def _parts(self) -> list[tuple[Quantizer, float]]:
        stages = [stage for stage in self.stages if isinstance(stage, Quantizer)]
        return [(stage, self.stage_scale**i) for i, stage in enumerate(stages)]

    def _depth(self, tokens: Tokens) -> Tensor:
        """Return ``(N,)``: after how many stages each row stops."""
        count, device = len(self.stages), tokens.item.device
        full = torch.full_like(tokens.item, count)
        if not self.training or self.stage_dropout == 0:
            return full
        cut = torch.randint(1, count + 1, (tokens.batch,), device=device)
        whole = torch.rand(tokens.batch, device=device) >= self.stage_dropout
        return torch.where(whole, count, cut)[tokens.item]
