"""The Vocos network as functions of a published state dict, written from the papers' formulas."""

import math

import torch
from torch.nn import functional as F


def decode(state, features, *, hop, setting=0, padding="same"):
    """Samples ``(B, T * hop)`` of features ``(B, D, T)``."""
    h = convolved(state, "backbone.embed", features)
    if "backbone.pos_net.0.norm1.weight" in state:
        h = front(state, h)
    h = normed(state, "backbone.norm", h, setting)
    n = 0
    while f"backbone.convnext.{n}.gamma" in state:
        h = block(state, f"backbone.convnext.{n}", h, setting)
        n += 1
    h = normed(state, "backbone.final_layer_norm", h, setting)
    out = affine(state, "head.out", h)
    size = out.shape[1] - 2
    m, p = out[:, : size // 2 + 1], out[:, size // 2 + 1 :]
    return samples(m.exp().clamp(max=100), p, size, hop, padding)


def samples(magnitude, phase, size, hop, padding):
    """Griffin and Lim 1984, equation 6, sample by sample."""
    batch, bins, count = magnitude.shape
    n, k = torch.arange(size)[:, None], torch.arange(bins)
    twice = torch.full((bins,), 2.0)
    twice[0] = twice[-1] = 1.0
    angle = 2 * math.pi * (n * k % size) / size
    real, imaginary = magnitude * phase.cos(), magnitude * phase.sin()
    imaginary = imaginary * (twice == 2)[:, None]  # of a real signal the ends have none
    frames = (angle.cos() * twice) @ real - (angle.sin() * twice) @ imaginary
    window = torch.sin(math.pi * torch.arange(size) / size) ** 2
    total, weight = torch.zeros(batch, count * hop + size), torch.zeros(count * hop + size)
    for t in range(count):
        total[:, t * hop : t * hop + size] += frames[..., t] / size * window
        weight[t * hop : t * hop + size] += window**2
    start = (size - hop) // 2 if padding == "same" else size // 2
    return (total / weight)[:, start : start + count * hop]


def convolved(state, key, x, groups=1):
    w = state[f"{key}.weight"]
    return F.conv1d(x, w, state[f"{key}.bias"], padding=w.shape[-1] // 2, groups=groups)


def affine(state, key, x):
    return torch.einsum("oc,bct->bot", state[f"{key}.weight"], x) + state[f"{key}.bias"][:, None]


def normed(state, key, x, setting):
    """Over channels; the gain and bias of a setting, or the only ones."""
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    if f"{key}.scale.weight" in state:
        gain, bias = (state[f"{key}.{name}.weight"][setting] for name in ("scale", "shift"))
    else:
        gain, bias = state[f"{key}.weight"], state[f"{key}.bias"]
    return (x - mean) / (var + 1e-6).sqrt() * gain[:, None] + bias[:, None]


def grouped(state, key, x):
    return F.group_norm(x, 32, state[f"{key}.weight"], state[f"{key}.bias"], 1e-6)


def block(state, key, x, setting):
    h = normed(state, f"{key}.norm", convolved(state, f"{key}.dwconv", x, x.shape[1]), setting)
    h = affine(state, f"{key}.pwconv1", h)
    h = h * 0.5 * (1 + torch.erf(h / 2**0.5))
    return x + state[f"{key}.gamma"][:, None] * affine(state, f"{key}.pwconv2", h)


def front(state, x):
    for n in range(5):
        key = f"backbone.pos_net.{n}"
        x = x + (attended if n == 2 else residual)(state, key, x)
    return grouped(state, "backbone.pos_net.5", x)


def residual(state, key, x):
    for n in (1, 2):
        h = grouped(state, f"{key}.norm{n}", x)
        x = convolved(state, f"{key}.conv{n}", h * torch.sigmoid(h))
    return x


def attended(state, key, x):
    h = grouped(state, f"{key}.norm", x)
    q, k, v = (convolved(state, f"{key}.{name}", h) for name in "qkv")
    score = torch.einsum("bci,bcj->bij", q, k) / x.shape[1] ** 0.5
    return convolved(state, f"{key}.proj_out", torch.einsum("bij,bcj->bci", score.softmax(-1), v))


def published(*, dim=4, width=8, inner=12, depth=2, size=32, ids=4, attention=False, seed=1):
    """A random state dict in the layout of the trainer."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def put(key, *shape):
        fan = math.prod(shape[1:])
        state[f"{key}.weight"] = torch.randn(*shape, generator=generator) / fan**0.5
        state[f"{key}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)

    def put_norm(key, adaptive):
        shape = (adaptive, width) if adaptive else (width,)
        names = ("scale.weight", "shift.weight") if adaptive else ("weight", "bias")
        state[f"{key}.{names[0]}"] = 1 + 0.2 * torch.randn(*shape, generator=generator)
        state[f"{key}.{names[1]}"] = 0.2 * torch.randn(*shape, generator=generator)

    put("backbone.embed", width, dim, 7)
    put_norm("backbone.norm", ids)
    for n in range(depth):
        key = f"backbone.convnext.{n}"
        state[f"{key}.gamma"] = torch.rand(width, generator=generator)
        put(f"{key}.dwconv", width, 1, 7)
        put_norm(f"{key}.norm", ids)
        put(f"{key}.pwconv1", inner, width)
        put(f"{key}.pwconv2", width, inner)
    put_norm("backbone.final_layer_norm", 0)
    for n in (0, 1, 3, 4) if attention else ():
        for m in (1, 2):
            put_norm(f"backbone.pos_net.{n}.norm{m}", 0)
            put(f"backbone.pos_net.{n}.conv{m}", width, width, 3)
    if attention:
        put_norm("backbone.pos_net.2.norm", 0)
        put_norm("backbone.pos_net.5", 0)
        for name in ("q", "k", "v", "proj_out"):
            put(f"backbone.pos_net.2.{name}", width, width, 1)
    put("head.out", size + 2, width)
    state["head.istft.window"] = torch.hann_window(size)
    return state
