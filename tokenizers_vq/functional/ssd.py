"""The recurrence of Mamba-2, one decay per head, as products of matrices.

    h_t = exp(decay_t) h_{t-1} + x_t (x) B_t              y_t = h_t C_t

Inside a chunk it is attention with a decaying mask; between chunks the state is handed on. Every
exponent is a sum of decays, so at most 0: nothing overflows. (Dividing by a running product of the
decays would: it is not a number after 64 steps.)

Reference:
    Dao and Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms Through
    Structured State Space Duality, 2024, https://arxiv.org/abs/2405.21060, section 6.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64
"""Longest chunk: shorter ones pass more states, longer ones make larger masks."""
NARROW = 32
"""Longest chunk of heads with no more channels: there masks cost more than products."""
AT_ONCE = 3 * 2**20
"""Numbers of x, without the batch, above which a signal is cut: the masks would leave the cache."""


def ssd(
    x: Tensor, decay: Tensor, b: Tensor, c: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run the recurrence in float32 (float64 for float64), whatever autocast says.

    Args:
        x: ``(B, L, H, P)``, inputs of H heads, multiplied by their step size.
        decay: ``(B, L, H)``, logarithms of the decays, at most 0.
        b: ``(B, L, G, N)``; each of the G groups serves ``H / G`` heads.
        c: ``(B, L, G, N)``.
        state: ``(B, H, P, N)``, what was before the first step; None for zeros.

    Returns:
        ``y (B, L, H, P)`` and the last state ``(B, H, P, N)``.
    """
    with torch.autocast(x.device.type, enabled=False):
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        x, decay, b, c = (part.to(kind) for part in (x, decay, b, c))
        batch, length, heads, width = x.shape
        state = x.new_zeros(batch, heads, width, b.shape[-1]) if state is None else state.to(kind)
        if length == 0:
            return x, state
        longest = NARROW if width <= NARROW else CHUNK
        chunk = -(-length // -(-length // longest))  # all of one size, so little is padded
        segment = max(1, AT_ONCE // (heads * width * chunk)) * chunk
        ys = []
        for start in range(0, length, segment):
            part = slice(start, start + segment)
            y, state = _segment(x[:, part], decay[:, part], b[:, part], c[:, part], state, chunk)
            ys.append(y)
        return (ys[0] if len(ys) == 1 else torch.cat(ys, dim=1)), state


def _segment(
    x: Tensor, decay: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Return the outputs of one segment and the state behind it."""
    length, heads = x.shape[1:3]
    groups = b.shape[2]
    missing = -length % chunk  # steps without input and decay change nothing
    x, decay, b, c = (
        F.pad(part, (*(0,) * (2 * part.ndim - 4), 0, missing))
        .reshape(part.shape[0], -1, chunk, *part.shape[2:])
        .transpose(2, 3)
        for part in (x, decay, b, c)
    )  # x (B, K, H, Q, P), decay (B, K, H, Q), b and c (B, K, G, Q, N)
    sums = decay.cumsum(-1)
    seen = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    mask = (sums[..., :, None] - sums[..., None, :]).masked_fill(~seen, -torch.inf).exp()
    products = c @ b.mT
    each = mask.reshape(*mask.shape[:2], groups, -1, chunk, chunk)
    shares = (each * products[:, :, :, None]).flatten(2, 3)
    y = shares @ x
    b, c = (part.repeat_interleave(heads // groups, dim=2) if groups > 1 else part
            for part in (b, c))  # fmt: skip
    left = (sums[..., -1:] - sums).exp()
    added = (x * left[..., None]).mT @ b  # (B, K, H, P, N)
    starts = []
    for more, factor in zip(added.unbind(1), sums[..., -1].exp().unbind(1), strict=True):
        starts.append(state)
        state = torch.addcmul(more, factor[..., None, None], state)
    y = y + sums.exp()[..., None] * (c @ torch.stack(starts, dim=1).mT)
    return y.transpose(2, 3).flatten(1, 2)[:, :length], state
