"""A stack of quantizers, each on what the ones before it left over.

Reference:
    Zeghidour et al., SoundStream, 2021, https://arxiv.org/abs/2107.03312, algorithm 1 and
    section III.C (quantizer dropout);
    Lee et al., Autoregressive Image Generation using Residual Quantization, 2022,
    https://arxiv.org/abs/2203.01941, eq. 3-8 (one estimator around the sum, shared codebooks);
    Babenko and Lempitsky, Additive Quantization for Extreme Vector Compression, 2014,
    https://doi.org/10.1109/CVPR.2014.124, section 3.2 (beam search).
    Differs from the first: the gradient; see ``Residual``.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.straight_through import rotate_to
from tokenizers_vq.ops import residual_codes
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import (
    Flat,
    Tokens,
    check_share,
    float32_island,
    linear,
    mean_terms,
)
from tokenizers_vq.quantizers.perturbed import refuse_perturbed
from tokenizers_vq.quantizers.rows import Choose, RowQuantizer, row_parts
from tokenizers_vq.quantizers.stages import (
    beam_search,
    draw_depth,
    fill_prefix,
    plain_tables,
    quantize_stage,
    settles,
)

ESTIMATORS = ("straight_through", "rotation")


class Residual(RowQuantizer):
    """Residual quantization: the output is the sum of the stages' codes.

    The search runs on detached sums, the losses of each stage see the latent minus those, and one
    estimator goes around the finished sum. So the straight-through gradient to the encoder is the
    identity at every depth (times the slope of the soft clamp, if there is one), and the
    commitment of every stage reaches it. A stage's own linear maps learn through its own
    estimator.

    Args:
        dim: latent width D; None for ``code_dim``.
        stages: the quantizers, at least one, all of width ``code_dim``.
        code_dim: width the stages work in; None for ``dim``, or for the first stage's width.
        stage_scale: stage i works on its input divided by ``stage_scale**i``. For heads with a
            fixed grid (fsq, lfq) which would otherwise repeat the first stage: 1/2 for signs, 1/L
            for L levels; one number, or one per channel.
        stage_dropout: probability that an item of a training batch stops after a random number of
            stages, 1 to all. The dropped ones have index -1, no loss and no update.
        repeat: how often the list of stages is gone through, each time with the same codebooks.
        beam: number of partial sums that go on from stage to stage in the search; 1 takes the best
            code of each stage. No row's error is ever larger than with 1; time grows in proportion.
            Stages then draw no codes at random.
        soft_clamp: bounds c of the channels, ``c * tanh(z / c)``, before the first stage, for
            grids from -1 to 1; one number or one per channel. None for no bounds.
        estimator: of the sum's gradient to the latent, ``"straight_through"`` or ``"rotation"``.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, repeat * sum of the stages' K).
        ``decode`` takes any number of leading columns.

    Terms:
        Each term's mean over the stages, and term/i for stage i.

    Raises:
        ConfigError: there is no stage, their widths differ, a stage's tokens depend on their place
            or are perturbed, a stage would rotate a gradient that does not pass through it, an
            option is out of range, or a stage has a search of its own and the beam cannot give it
            a choice.

    Example:
        >>> from tokenizers_vq.quantizers.vq import VectorQuantizer
        >>> q = Residual(dim=8, stages=[VectorQuantizer(8, codebook_size=16) for _ in range(4)])
        >>> q(torch.zeros(2, 5, 8)).indices.shape
        torch.Size([2, 5, 4])
    """

    conventions = (*RowQuantizer.conventions, "stage_scale", "soft_clamp", "repeat")
    nested = True
    _channel_scale: Tensor  # where stage_scale has one number per channel
    _channel_bound: Tensor  # where soft_clamp has

    def __init__(
        self,
        dim: int | None = None,
        *,
        stages: Sequence[Quantizer],
        code_dim: int | None = None,
        stage_scale: float | Sequence[float] = 1.0,
        stage_dropout: float = 0.0,
        repeat: int = 1,
        beam: int = 1,
        soft_clamp: float | Sequence[float] | None = None,
        estimator: str = "straight_through",
    ) -> None:
        name = type(self).__name__
        if not stages:
            raise ConfigError(f"{name}: expected at least one stage; got none.")
        stages = row_parts(stages, name)
        refuse_perturbed(stages, name)
        _refuse_rotation(stages, name)
        if estimator not in ESTIMATORS:
            raise unknown_name(f"{name} estimator", estimator, ESTIMATORS)
        check_share(name, stage_dropout=stage_dropout)
        dim_or_first = stages[0].dim if dim is None else dim
        width = dim_or_first if code_dim is None else code_dim
        widths = [stage.dim for stage in stages]
        if set(widths) != {width}:
            raise ConfigError(
                f"{name}: expected stages of width {width}; got {widths}. "
                "Give each stage that dim, or set code_dim."
            )
        for option, value in (("repeat", repeat), ("beam", beam)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"{name}: expected a {option} of at least 1; got {value!r}. "
                    "Give a positive whole number."
                )
        sizes = tuple(size for stage in stages for size in stage.codebook_sizes) * repeat
        super().__init__(dim, width, sizes)
        self.stages = nn.ModuleList(stages)
        self.stage_scale = stage_scale
        self.stage_dropout = stage_dropout
        self.repeat = repeat
        self.beam = beam
        self.soft_clamp = soft_clamp
        self.estimator = estimator
        self._columns = [stage.num_codebooks for stage in stages] * repeat
        self._per_channel("_channel_scale", "stage_scale", stage_scale)
        self._per_channel("_channel_bound", "soft_clamp", soft_clamp)
        if beam > 1:
            self._check_beam(stages)

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return the width of each stage: that of the whole."""
        return dim

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize stage by stage; one estimator around the sum."""
        u, source = self._bounded(u), self._bounded(source)
        depth = self._depth(tokens)
        chosen = self._chosen(u, depth)
        out = torch.zeros_like(u)
        flats = []
        for i, (stage, scale) in enumerate(self._parts()):
            rest = self._rest(i, u, out.detach()) / scale
            active = depth > i
            inside = replace(tokens, valid=tokens.valid & active)
            flat = quantize_stage(stage, rest, inside, chosen[i])
            out = out + torch.where(active[:, None], flat.out * scale, 0.0)
            flats.append(replace(flat, indices=torch.where(active[:, None], flat.indices, -1)))
        terms = mean_terms([flat.terms for flat in flats])
        for i, flat in enumerate(flats):
            terms |= {f"{name}/{i}": term for name, term in flat.terms.items()}
        indices = torch.cat([flat.indices for flat in flats], dim=1)
        loss = torch.stack([flat.loss for flat in flats]).mean()
        # Not straight_through(): a stage's map back to this width keeps its gradient in out.
        if self.estimator == "rotation":
            source = rotate_to(source, out.detach())
        return Flat(out + (source - source.detach()), indices, loss, terms)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of all stages."""
        u = self._bounded(u)
        tables = plain_tables([stage for stage, _ in self._parts()])
        if tables and self._sums_plainly():
            return residual_codes(u, tables)
        depth = torch.full_like(u[:, 0], len(self._columns), dtype=torch.int64)
        return self._greedy(u, depth) if self.beam == 1 else self._search(u, depth)

    def encode_leading(self, z: Tensor, count: int) -> Tensor:
        """Return the first ``count`` columns of ``encode(z)``: ``(B, *grid, count)``.

        Where each stage is a plain table, the ones after them are not searched.

        Raises:
            ShapeError: ``z`` has another shape or dtype.
        """
        tables = plain_tables([stage for stage, _ in self._parts()])
        if not tables or not self._sums_plainly():
            return self.encode(z)[..., :count]
        self._check(z, None)
        with float32_island(z.device):
            rows, _, place = self._rows(z, None)
            u = self._bounded(linear(self.project_in, rows))
            return place(residual_codes(u, tables[:count]), -1)

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the sums ``(N, d)`` of the codes of ``indices (N, K)``; -1 adds nothing."""
        out = self._anchor.new_zeros(indices.shape[0], self.code_dim, dtype=torch.float32)
        columns = torch.split(indices, self._columns, dim=1)
        for (stage, scale), column in zip(self._parts(), columns, strict=True):
            out = out + stage.decode_rows(column) * scale
        return out

    def soft_rows(self, rows: Tensor, choose: Choose) -> tuple[Tensor, list[Tensor]]:
        """Return indices and distributions of all stages, each given the codes chosen before it."""
        u = self._bounded(linear(self.project_in, rows))
        out, columns, probs = torch.zeros_like(u), [], []
        for i, (stage, scale) in enumerate(self._parts()):
            column, parts = stage.soft_rows(self._rest(i, u, out) / scale, choose)
            out = out + stage.decode_rows(column) * scale
            columns.append(column)
            probs += parts
        return torch.cat(columns, dim=1), probs

    def code_update(self, u: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Replay the chain, stage by stage, on the stored indices and the codes as they are now.

        The optimizer has stepped since the forward: codes and linear maps that learn by gradient
        have moved, so the residuals differ from those of the forward by one small step. A stage
        passes on what its codes before this update leave over, unless they were replaced.
        """
        u = self._bounded(u)
        out, replaced = torch.zeros_like(u), False
        columns = torch.split(indices, self._columns, dim=1)
        parts = list(zip(self._parts(), columns, strict=True))
        # A codebook used twice moves between its stages, and the forward did not see that.
        before = [stage.decode_rows(column) for (stage, _), column in parts * (self.repeat > 1)]
        for i, ((stage, scale), given) in enumerate(parts):
            row, column = self._rest(i, u, out) / scale, given
            used = (column >= 0).any(-1)
            if replaced:  # an earlier stage started anew: these residuals never had a code
                column = torch.where(used[:, None], stage.encode_rows(row), -1)
            codes = before[i] if before and not replaced else stage.decode_rows(column)
            lost = skipped if i < len(self.stages) else torch.zeros_like(skipped)  # counted once
            if stage.update_rows(row[used], column[used], lost):
                replaced = True
                column = torch.where(used[:, None], stage.encode_rows(row), -1)
                codes = stage.decode_rows(column)
            out = out + codes * scale
        return replaced

    def complete(self, indices: Tensor) -> Tensor:
        """Return ``indices (..., k)``, a prefix of the stages, filled up with -1.

        Raises:
            ShapeError: there is no column.
        """
        return fill_prefix(indices, self.num_codebooks)

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

    # ---------------------------------------------------------------------------------------------

    def _parts(self) -> list[tuple[RowQuantizer, float | Tensor]]:
        stages = [stage for stage in self.stages if isinstance(stage, RowQuantizer)] * self.repeat
        scale: float | Tensor = self._channel_scale
        if isinstance(self.stage_scale, float | int):
            scale = self.stage_scale
        return [(stage, scale**i) for i, stage in enumerate(stages)]

    def _rest(self, stage: int, u: Tensor, out: Tensor) -> Tensor:
        """Return what a stage quantizes ``(N, d)``, given the sum ``out`` of those before it."""
        return u - out

    def _sums_plainly(self) -> bool:
        """Whether each stage's rest is the latent minus the codes before, and it has no choice."""
        unscaled = self.stage_scale == 1.0
        return unscaled and self.beam == 1 and type(self)._rest is Residual._rest

    def _depth(self, tokens: Tokens) -> Tensor:
        """Return ``(N,)``: after how many stages each row stops."""
        dropout = self.stage_dropout if self.training else 0.0
        return draw_depth(tokens, 1, len(self._columns), dropout, self.generator)

    def _bounded(self, u: Tensor) -> Tensor:
        if self.soft_clamp is None:
            return u
        bound: float | Tensor = self._channel_bound
        if isinstance(self.soft_clamp, float | int):
            bound = self.soft_clamp
        return torch.tanh(u / bound) * bound

    def _greedy(self, u: Tensor, depth: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of each stage's own choice; -1 from ``depth`` on."""
        out = torch.zeros_like(u)
        columns = []
        for i, (stage, scale) in enumerate(self._parts()):
            column = stage.encode_rows(self._rest(i, u, out) / scale)
            columns.append(torch.where((depth > i)[:, None], column, -1))
            out = out + stage.decode_rows(column) * scale
        return torch.cat(columns, dim=1)

    def _search(self, u: Tensor, depth: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of the beam, or of the greedy choice where it is nearer."""
        parts = self._parts()

        def propose(i: int, u: Tensor, out: Tensor, count: int) -> tuple[Tensor, Tensor]:
            stage, scale = parts[i]
            rest = self._rest(i, u, out) / scale
            columns = stage.candidates(linear(stage.project_in, rest), count)
            codes = stage.decode_rows(columns.flatten(0, 1)) * scale
            return columns, codes.reshape(*columns.shape[:2], codes.shape[1])

        greedy = self._greedy(u, depth)
        wide = beam_search(propose, u, depth, len(parts), self.beam)
        errors = [(u - self.code_vectors(index)).square().sum(-1) for index in (greedy, wide)]
        return torch.where((errors[1] < errors[0])[:, None], wide, greedy)

    @torch.no_grad()
    def _chosen(self, u: Tensor, depth: Tensor) -> list[Tensor | None]:
        """Return the indices that a beam chose, stage by stage; None where a stage chooses."""
        if self.beam == 1:
            return [None] * len(self._columns)
        return list(torch.split(self._search(u, depth), self._columns, dim=1))

    def _per_channel(self, buffer: str, option: str, value: float | Sequence[float] | None) -> None:
        """Keep an option with one number per channel as a tensor that moves with the module."""
        many = isinstance(value, Sequence) and not isinstance(value, str)
        values = list(value) if many else [value]  # type: ignore[arg-type] # the same question
        whole = all(isinstance(x, (int, float)) and x > 0 for x in values)
        if value is not None and not (whole and len(values) in (1, self.code_dim)):
            raise ConfigError(
                f"{type(self).__name__}: expected a {option} above 0, one number or "
                f"{self.code_dim}; got {value!r:.80}."
            )
        self.register_buffer(buffer, torch.tensor(values) if many else None, persistent=False)
        if many:
            self.float32_buffers = (*self.float32_buffers, buffer)

    def _check_beam(self, stages: Sequence[Quantizer]) -> None:
        for i, stage in enumerate(stages):
            if not settles(type(stage)):
                raise ConfigError(
                    f"{type(self).__name__}: expected stages that take a beam's choice; got "
                    f"{type(stage).__name__} at stage {i}. Use beam=1."
                )


def _refuse_rotation(stages: Sequence[Quantizer], where: str) -> None:
    """Raise if a stage asks for the rotation trick: the gradient goes around the stages."""
    for i, stage in enumerate(stages):
        if getattr(stage, "estimator", None) == "rotation" and not isinstance(stage, Residual):
            raise ConfigError(
                f"{where}: expected stages without the rotation trick; got one at stage {i}. "
                "The gradient goes around the stages: give a residual stack estimator='rotation'."
            )
