"""Selective state spaces step by step in float64, from the equations."""

import torch
from torch.nn import functional as F


def scan(u, delta, a, b, c, state=None):
    """Mamba-1: delta after its softplus. Returns y (B, L, D) and the last state."""
    h = torch.zeros(u.shape[0], *a.shape, dtype=u.dtype) if state is None else state
    ys = []
    for ut, dt, bt, ct in zip(*(x.unbind(1) for x in (u, delta, b, c)), strict=True):
        h = torch.exp(dt[..., None] * a) * h + (dt * ut)[..., None] * bt[:, None]
        ys.append((h * ct[:, None]).sum(-1))
    return torch.stack(ys, 1), h


def ssd(x, decay, b, c, state=None):
    """Mamba-2: one group per head already. Returns y (B, L, H, P) and the last state."""
    h = state if state is not None else x.new_zeros(*x[:, 0].shape, b.shape[-1])
    ys = []
    for xt, dt, bt, ct in zip(*(v.unbind(1) for v in (x, decay, b, c)), strict=True):
        h = dt.exp()[..., None, None] * h + xt[..., None] * bt[..., None, :]
        ys.append((h * ct[..., None, :]).sum(-1))
    return torch.stack(ys, 1), h


def conv(x, weight, bias):
    """A depthwise causal convolution and SiLU, x (B, L, C)."""
    taps, length = weight.shape[-1], x.shape[1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    return F.silu(bias + sum(padded[:, k : k + length] * weight[:, 0, k] for k in range(taps)))


def mamba1(state, x, tail="", flip=False):
    """The output before out_proj of one direction, x (B, L, W)."""
    inner, gate = F.linear(x, state["in_proj.weight"]).chunk(2, -1)
    if flip:
        inner, gate = inner.flip(1), gate.flip(1)
    inner = conv(inner, state[f"conv1d{tail}.weight"], state[f"conv1d{tail}.bias"])
    a = -state[f"A{tail}_log"].exp()
    rank, n = state[f"dt_proj{tail}.weight"].shape[1], a.shape[1]
    low, b, c = F.linear(inner, state[f"x_proj{tail}.weight"]).split([rank, n, n], -1)
    delta = F.linear(low, state[f"dt_proj{tail}.weight"], state[f"dt_proj{tail}.bias"])
    y, _ = scan(inner, F.softplus(delta), a, b, c)
    y = (y + state[f"D{tail}"] * inner) * F.silu(gate)
    return y.flip(1) if flip else y


def mamba2(state, x, head, groups):
    """A whole mixer, x (B, L, W)."""
    heads = state["A_log"].shape[0]
    inner = heads * head
    n = (state["conv1d.weight"].shape[0] - inner) // (2 * groups)
    sizes = [inner, inner + 2 * groups * n, heads]
    z, mixed, dt = F.linear(x, state["in_proj.weight"]).split(sizes, -1)
    mixed = conv(mixed, state["conv1d.weight"], state["conv1d.bias"])
    v, b, c = mixed.split([inner, groups * n, groups * n], -1)
    v = v.unflatten(-1, (heads, head))
    b, c = (m.unflatten(-1, (groups, n)).repeat_interleave(heads // groups, 2) for m in (b, c))
    dt = F.softplus(dt + state["dt_bias"])
    y, _ = ssd(v * dt[..., None], -dt * state["A_log"].exp(), b, c)
    y = (y + state["D"][:, None] * v).flatten(2) * F.silu(z)
    y = y * (y.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * state["norm.weight"]
    return F.linear(y, state["out_proj.weight"])


def wave(shape, a, b, scale=1.0, offset=0.0):
    """offset + scale * sin(a * i + b), i the place in memory order, float64."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (offset + scale * torch.sin(a * count + b)).reshape(shape)
