"""The recurrence of Mamba-1 and its gradients in torch: exact, in chunks, in float32 or float64.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t        y_t = C_t . h_t

The decay of a state is its exact value over the time ``delta``; the input is added by Euler's rule,
as in the published weights. States are kept at the start of each chunk only, and made again for
the gradients, so memory is that of the signal and not N times it.

Reference:
    Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023,
    https://arxiv.org/abs/2312.00752, equations 2 to 4 and section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 64
"""Steps between the states that are kept."""
AT_ONCE = 2**19
"""Numbers that one pass makes, so that they stay in the cache."""

Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def scan(
    u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence.

    Args:
        u: ``(B, L, D)``.
        delta: ``(B, L, D)``, positive.
        a: ``(D, N)``, negative.
        b: ``(B, L, N)``.
        c: ``(B, L, N)``.
        state: ``(B, D, N)``, what was before the first step.

    Returns:
        ``y (B, L, D)``, the last state, and the states before each chunk,
        ``(ceil(L / CHUNK), B, D, N)``.
    """
    y, last = torch.empty_like(u), torch.empty_like(state)
    starts = state.new_empty(-(-u.shape[1] // CHUNK), *state.shape)
    for rows in _rows(u, a):
        h = state[rows]
        for i, steps in enumerate(_steps(u.shape[1])):
            starts[i, rows] = h
            hs, _ = _states(u[rows, steps], delta[rows, steps], a, b[rows, steps], h)
            out = torch.matmul(hs, _time_first(c[rows, steps])[..., None])
            y[rows, steps] = _time_first(out[..., 0])
            h = hs[-1].clone()
        last[rows] = h
    return y, last, starts


def scan_gradients(
    grads: tuple[Tensor, Tensor],
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    starts: Tensor,
) -> Six:
    """Return the gradients of u, delta, a, b, c and the first state.

    Args:
        grads: of ``y (B, L, D)`` and of the last state ``(B, D, N)``.
        u: as in ``scan``, like the next four.
        delta: as in ``scan``.
        a: as in ``scan``.
        b: as in ``scan``.
        c: as in ``scan``.
        starts: what ``scan`` returned.
    """
    dy, dlast = grads
    du, ddelta, db, dc = (torch.empty_like(x) for x in (u, delta, b, c))
    da, dstate = torch.zeros_like(a), torch.empty_like(dlast)
    for rows in _rows(u, a):
        g_next = dlast[rows]
        for i, steps in reversed(list(enumerate(_steps(u.shape[1])))):
            parts = [_time_first(x[rows, steps]) for x in (u, delta, b, c, dy)]
            hs, decay = _states(
                u[rows, steps], delta[rows, steps], a, b[rows, steps], starts[i, rows]
            )
            found, da_part, g_next = _chunk_gradients(parts, a, hs, decay, starts[i, rows], g_next)
            for whole, part in zip((du, ddelta, db, dc), found, strict=True):
                whole[rows, steps] = part.transpose(0, 1)
            da += da_part
        dstate[rows] = g_next
    return du, ddelta, da, db, dc, dstate


def _chunk_gradients(
    parts: list[Tensor], a: Tensor, hs: Tensor, decay: Tensor, start: Tensor, after: Tensor
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Return the gradients of one chunk, of ``a``, and of the state before the chunk.

    Args:
        parts: u, delta, b, c and the gradient of y, time first.
        a: ``(D, N)``.
        hs: ``(S, R, D, N)``, all states.
        decay: ``(S, R, D, N)``.
        start: ``(R, D, N)``, the state before.
        after: ``(R, D, N)``, the gradient of the last state from later chunks.
    """
    u, delta, b, c, dy = parts
    g = dy[..., None] * c[..., None, :]
    steps = g.unbind(0)
    decays = decay.unbind(0)
    steps[-1].add_(after)
    for t in range(len(steps) - 2, -1, -1):
        steps[t].addcmul_(decays[t + 1], steps[t + 1])
    dc = torch.matmul(dy[..., None, :], hs)[..., 0, :]
    dx = torch.matmul(g, b[..., None])[..., 0]
    db = torch.matmul((delta * u)[..., None, :], g)[..., 0, :]
    before = decays[0] * steps[0]
    ga = g.mul_(decay)
    ga[1:].mul_(hs[:-1])
    ga[0].mul_(start)
    da = torch.einsum("srd,srdn->dn", delta, ga)
    ddelta = torch.einsum("dn,srdn->srd", a, ga) + u * dx
    return (delta * dx, ddelta, db, dc), da, before


def _states(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return all states of a chunk and their decays, both ``(S, R, D, N)``."""
    size = (u.shape[1], u.shape[0], *a.shape)
    decay, hs = a.new_empty(size), a.new_empty(size)
    torch.mul(_time_first(delta)[..., None], a, out=decay)
    decay.exp_()
    torch.mul(_time_first(delta * u)[..., None], _time_first(b)[..., None, :], out=hs)
    # one view per step and no copies: h is updated where it lies
    h = start
    for now, factor in zip(hs.unbind(0), decay.unbind(0), strict=True):
        h = now.addcmul_(factor, h)
    return hs, decay


def _time_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


def _steps(length: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK))


def _rows(u: Tensor, a: Tensor) -> Iterator[slice]:
    """Yield slices of the batch that are worked on together."""
    count = max(1, AT_ONCE // max(1, min(CHUNK, u.shape[1]) * a.numel()))
    return (slice(start, start + count) for start in range(0, u.shape[0], count))
