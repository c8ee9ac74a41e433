"""Running a causal network over a signal in pieces, with the numbers of the whole signal.

A layer that looks at other times than the present one has ``step(x, state, last)``: it takes the
next samples and what it remembered, and returns the outputs that these decide and what it
remembers now. It may return fewer positions than it took, also none, and makes up for it later;
``last`` says that nothing follows. The outputs of all steps, one after the other, are those of
``forward`` on the whole signal, for every way of cutting it.

States are values: nested tuples of tensors and flags, None before the first step. They can be
kept, copied, saved and gone back to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError

State = Any
POINTWISE = (nn.ELU, nn.GELU, nn.Identity, nn.LeakyReLU, nn.ReLU, nn.SiLU, nn.Tanh)


def step(layer: nn.Module, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
    """Run any layer on the next samples ``x (B, C, n)``, n of 0 and more.

    Raises:
        ConfigError: the layer looks at other times and cannot be run in pieces.
    """
    run: Any = getattr(layer, "step", None)
    if run is not None:
        found: tuple[Tensor, State] = run(x, state, last)
        return found
    if isinstance(layer, POINTWISE):
        return layer(x), None
    raise ConfigError(
        f"stream: expected layers that can run in pieces; got {type(layer).__name__}. "
        "Encode whole signals, or choose a causal backbone."
    )


class Chain(nn.Sequential):
    """Layers one after the other, which can be run in pieces."""

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the outputs that ``x (B, C, n)`` decides, and the state."""
        states = state or (None,) * len(self)
        after = []
        for layer, before in zip(self, states, strict=True):
            x, now = step(layer, x, before, last)
            after.append(now)
        return x, tuple(after)


class Residual(nn.Module):
    """A branch added to a shortcut, which can be run in pieces.

    Args:
        branch: may return its outputs later than it takes their inputs.
        shortcut: a layer without delay; None for the identity.
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return ``shortcut(x) + branch(x)``."""
        y: Tensor = self.branch(x)  # first: while it runs, no shortcut is in memory
        direct: Tensor = self.shortcut(x)
        return y + direct if torch.is_grad_enabled() or direct is x else direct.add_(y)

    def step(self, x: Tensor, state: State, last: bool) -> tuple[Tensor, State]:
        """Return the sums that ``x (B, C, n)`` decides, and the state."""
        inner, beside, waiting = state or (None, None, None)
        y, inner = step(self.branch, x, inner, last)
        direct, beside = step(self.shortcut, x, beside, last)
        if waiting is not None:
            direct = torch.cat([waiting, direct], dim=-1)
        count = y.shape[-1]
        return y + direct[..., :count], (inner, beside, direct[..., count:])


def tensors_of(state: State) -> Iterator[Tensor]:
    """Yield the tensors of a state, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple | list):
        for part in state:
            yield from tensors_of(part)
