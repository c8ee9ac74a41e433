"""Mixers of sequences by selective state spaces: Mamba, Mamba-2, and both in two directions.

Parameters are named and shaped as in the package mamba-ssm, those of the second direction as in
Vim and VideoMamba, so published weights load as they are.

Reference:
    Gu and Dao, Mamba, 2023, https://arxiv.org/abs/2312.00752, section 3.4;
    Dao and Gu, Transformers are SSMs, 2024, https://arxiv.org/abs/2405.21060, section 7;
    Zhu et al., Vision Mamba, 2024, https://arxiv.org/abs/2401.09417, algorithm 1 (two directions).
    Their two directions run on any device here; on a CPU their code silently leaves one out.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.ssd import ssd
from tokenizers_vq.ops.selective_scan import selective_scan

State = tuple[Tensor, Tensor] | None
SLOWEST, FASTEST, FLOOR = 1e-3, 1e-1, 1e-4
"""Step sizes at the beginning lie between the first two, and are never below the last."""


class Mamba1Mixer(nn.Module):
    """A gated selective scan whose step size, input and output maps depend on the input.

    Args:
        width: channels W.
        states: N per inner channel.
        kernel: taps of the causal convolution.
        expand: inner channels divided by W.
        bidirectional: a second scan from the end, with all its own but the outer projections.
        average: halve the sum of both directions, as later versions of Vim do.

    Shapes:
        x (B, L, W) -> (B, L, W), any L
    """

    def __init__(
        self,
        width: int,
        states: int = 16,
        kernel: int = 4,
        expand: int = 2,
        bidirectional: bool = False,
        average: bool = True,
    ) -> None:
        super().__init__()
        inner, self.rank, self.states = expand * width, math.ceil(width / 16), states
        self.share = 0.5 if average else 1.0
        self.bidirectional = bidirectional
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        for tail in ("", "_b") if bidirectional else ("",):
            log = torch.arange(1, states + 1, dtype=torch.float32).log().expand(inner, -1).clone()
            setattr(self, f"A{tail}_log", nn.Parameter(log))
            setattr(self, f"D{tail}", nn.Parameter(torch.ones(inner)))
            conv = nn.Conv1d(inner, inner, kernel, groups=inner)
            setattr(self, f"conv1d{tail}", conv)
            projection = nn.Linear(inner, self.rank + 2 * states, bias=False)
            setattr(self, f"x_proj{tail}", projection)
            setattr(self, f"dt_proj{tail}", _step_projection(self.rank, inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed sequence ``(B, L, W)``."""
        inner, gate = self.in_proj(x).chunk(2, dim=-1)
        y, _ = self._scan(inner, gate, "", None)
        if self.bidirectional:
            back, _ = self._scan(inner.flip(1), gate.flip(1), "_b", None)
            y = self.share * (y + back.flip(1))
        mixed: Tensor = self.out_proj(y)
        return mixed

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the outputs of the next steps ``(B, n, W)`` and what comes after them needs.

        Raises:
            ConfigError: there is a second direction.
        """
        _refuse_directions(self)
        inner, gate = self.in_proj(x).chunk(2, dim=-1)
        y, state = self._scan(inner, gate, "", state)
        return self.out_proj(y), state

    def _scan(self, x: Tensor, gate: Tensor, tail: str, state: State) -> tuple[Tensor, State]:
        part: Any = {name: getattr(self, name + tail) for name in ("conv1d", "x_proj", "dt_proj")}
        before, h = state or (None, None)
        x, before = causal_conv(x, part["conv1d"], before)
        sizes = (self.rank, self.states, self.states)
        low, b, c = part["x_proj"](x).split(sizes, dim=-1)
        # the bias belongs to the softplus, which runs in float32
        step = F.linear(low, part["dt_proj"].weight).float() + part["dt_proj"].bias.float()
        a = -torch.exp(getattr(self, f"A{tail}_log").float())
        skip = getattr(self, f"D{tail}")
        y, h = selective_scan(x, step.to(_wide(x)), a.to(_wide(x)), b, c, h, skip=skip, gate=gate)
        return y, (before, h)


class Mamba2Mixer(nn.Module):
    """A gated scan with one decay per head: products of matrices, the fastest mixer on any device.

    Two directions of Mamba-2 are ours: gate, inner channels and outer projections are shared, the
    rest is each direction's own, and their outputs are averaged.

    Args:
        width: channels W.
        states: N per inner channel.
        head: channels P per head.
        expand: inner channels divided by W.
        groups: of heads that share their input and output maps.
        kernel: taps of the causal convolution.
        bidirectional: a second scan from the end.

    Shapes:
        x (B, L, W) -> (B, L, W), any L

    Raises:
        ConfigError: heads do not divide the inner channels, or groups the heads.
    """

    def __init__(
        self,
        width: int,
        states: int = 128,
        head: int = 64,
        expand: int = 2,
        groups: int = 1,
        kernel: int = 4,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        inner = expand * width
        if inner % head or (inner // head) % groups:
            raise ConfigError(
                f"Mamba2Mixer: expected heads that divide {inner} channels, and groups that divide "
                f"the heads; got heads of {head} and {groups} groups. Correct the backbone config."
            )
        self.heads, self.head, self.groups, self.states = inner // head, head, groups, states
        self.bidirectional = bidirectional
        maps = 2 * groups * states
        self.in_proj = nn.Linear(width, 2 * inner + maps + self.heads, bias=False)
        if bidirectional:
            self.in_proj_b = nn.Linear(width, maps + self.heads, bias=False)
        for tail in ("", "_b") if bidirectional else ("",):
            setattr(self, f"dt_bias{tail}", nn.Parameter(_step_bias(self.heads)))
            log = torch.empty(self.heads).uniform_(1, 16).log()
            setattr(self, f"A{tail}_log", nn.Parameter(log))
            setattr(self, f"D{tail}", nn.Parameter(torch.ones(self.heads)))
            conv = nn.Conv1d(inner + maps, inner + maps, kernel, groups=inner + maps)
            setattr(self, f"conv1d{tail}", conv)
        self.norm = nn.RMSNorm(inner, eps=1e-5)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed sequence ``(B, L, W)``."""
        gate, mixed, step = self._project(x)
        y, _ = self._scan(mixed, step, "", None)
        if self.bidirectional:
            inner = self.heads * self.head
            maps, step = self.in_proj_b(x).split([mixed.shape[-1] - inner, self.heads], dim=-1)
            mixed = torch.cat([mixed[..., :inner], maps], dim=-1)
            back, _ = self._scan(mixed.flip(1), step.flip(1), "_b", None)
            y = (y + back.flip(1)) / 2
        return self._out(y, gate)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the outputs of the next steps ``(B, n, W)`` and what comes after them needs.

        Raises:
            ConfigError: there is a second direction.
        """
        _refuse_directions(self)
        gate, mixed, step = self._project(x)
        y, state = self._scan(mixed, step, "", state)
        return self._out(y, gate), state

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        inner, maps = self.heads * self.head, 2 * self.groups * self.states
        return torch.split(self.in_proj(x), [inner, inner + maps, self.heads], dim=-1)

    def _scan(self, mixed: Tensor, step: Tensor, tail: str, state: State) -> tuple[Tensor, State]:
        before, h = state or (None, None)
        mixed, before = causal_conv(mixed, getattr(self, f"conv1d{tail}"), before)
        maps = self.groups * self.states
        parts = torch.split(mixed, [self.heads * self.head, maps, maps], dim=-1)
        x, b, c = (
            part.reshape(*part.shape[:2], count, part.shape[-1] // count)
            for part, count in zip(parts, (self.heads, self.groups, self.groups), strict=True)
        )
        wide = _wide(x)
        step = F.softplus(step.to(wide) + getattr(self, f"dt_bias{tail}").to(wide))
        decay = -step * getattr(self, f"A{tail}_log").to(wide).exp()
        y, h = ssd(x.to(wide) * step[..., None], decay, b, c, h)
        y = y + getattr(self, f"D{tail}").to(wide)[:, None] * x
        return y.flatten(2), (before, h)

    def _out(self, y: Tensor, gate: Tensor) -> Tensor:
        y = self.norm(y * F.silu(gate.to(y.dtype)))
        mixed: Tensor = self.out_proj(y.to(gate.dtype))
        return mixed


def causal_conv(x: Tensor, conv: nn.Module, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the SiLU of a depthwise convolution that sees the past only, and the last inputs.

    Args:
        x: ``(B, L, C)``.
        conv: ``nn.Conv1d`` of C groups with k taps, for its weights.
        before: ``(B, k - 1, C)``, the inputs before; None for zeros.
    """
    weight: Any = conv.weight
    bias: Any = conv.bias
    taps, length = weight.shape[-1], x.shape[1]
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    x = F.pad(x, (0, 0, taps - 1, 0)) if before is None else torch.cat([before, x], dim=1)
    y = bias + x[:, :length] * weight[:, 0, 0]
    for tap in range(1, taps):
        y = torch.addcmul(y, x[:, tap : tap + length], weight[:, 0, tap])
    return F.silu(y), x[:, length:]


def _step_bias(count: int) -> Tensor:
    """Return biases whose softplus is log-uniform between the slowest and the fastest step."""
    low, high = math.log(SLOWEST), math.log(FASTEST)
    step = torch.empty(count).uniform_(low, high).exp().clamp(min=FLOOR)
    return step + (-(-step).expm1()).log()


def _step_projection(rank: int, inner: int) -> nn.Linear:
    layer = nn.Linear(rank, inner)
    nn.init.uniform_(layer.weight, -(rank**-0.5), rank**-0.5)
    with torch.no_grad():
        layer.bias.copy_(_step_bias(inner))
    return layer


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _refuse_directions(mixer: Mamba1Mixer | Mamba2Mixer) -> None:
    if mixer.bidirectional:
        raise ConfigError(
            f"{type(mixer).__name__}: expected one direction to run in pieces; got two. "
            "Give it whole sequences."
        )
