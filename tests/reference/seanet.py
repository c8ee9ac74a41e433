"""EnCodec's network as functions of a published state dict, written from the paper's formulas."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def weight_of(state, key):
    """Salimans and Kingma 2016, equation 2, or the plain weight."""
    if f"{key}.weight" in state:
        return state[f"{key}.weight"]
    v = state[f"{key}.weight_v"]
    return v / v.flatten(1).norm(dim=1)[:, None, None] * state[f"{key}.weight_g"]


def mirrored(x, left, right):
    """Reflect; a short signal has zeros behind it, which are taken away again."""
    extra = max(0, max(left, right) + 1 - x.shape[-1])
    x = torch.cat([x, x.new_zeros(*x.shape[:2], extra)], -1)
    length = x.shape[-1]
    at = torch.arange(-left, length + right).abs()
    at = torch.where(at >= length, 2 * (length - 1) - at, at)
    x = x[..., at]
    return x[..., : x.shape[-1] - extra]


def conv(state, key, x, *, causal, stride=1, dilation=1):
    w, b = weight_of(state, f"{key}.conv"), state[f"{key}.conv.bias"]
    span = (w.shape[-1] - 1) * dilation + 1
    total = span - stride
    ideal = (math.ceil((x.shape[-1] - stride) / stride) * stride) + stride
    right = 0 if causal else total // 2
    x = mirrored(x, total - right, right + ideal - x.shape[-1])
    return normed(state, key, F.conv1d(x, w, b, stride, dilation=dilation))


def up(state, key, x, *, causal, stride):
    w = weight_of(state, f"{key}.convtr")
    y = normed(state, key, F.conv_transpose1d(x, w, state[f"{key}.convtr.bias"], stride))
    right = stride if causal else stride // 2  # kernels of twice the stride
    return y[..., stride - right : y.shape[-1] - right]


def normed(state, key, x):
    if f"{key}.norm.weight" not in state:
        return x
    return F.group_norm(x, 1, state[f"{key}.norm.weight"], state[f"{key}.norm.bias"])


def unit(state, key, x, causal):
    y = conv(state, f"{key}.block.1.conv", F.elu(x), causal=causal)
    y = conv(state, f"{key}.block.3.conv", F.elu(y), causal=causal)
    return y + conv(state, f"{key}.shortcut.conv", x, causal=causal)


def recurrent(state, key, x, both=False):
    layers = len({name for name in state if name.startswith(f"{key}.lstm.weight_hh_l")}) // (
        1 + both
    )
    lstm = nn.LSTM(x.shape[1], x.shape[1], layers, bidirectional=both)
    lstm.load_state_dict({k[len(key) + 6 :]: v for k, v in state.items() if key + "." in k})
    y = lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0)
    return y + torch.cat([x] * (1 + both), 1)


def encoder(state, x, ratios, *, causal, both=False):
    """Latents ``(B, D, T')`` of ``(B, C, T)``; ratios in the order of the decoder."""
    at = "encoder.model."
    x = conv(state, f"{at}0.conv", x, causal=causal)
    n = 1
    for ratio in reversed(ratios):
        x = F.elu(unit(state, f"{at}{n}", x, causal))
        x = conv(state, f"{at}{n + 2}.conv", x, causal=causal, stride=ratio)
        n += 3
    x = F.elu(recurrent(state, f"{at}{n}", x, both))
    return conv(state, f"{at}{n + 2}.conv", x, causal=causal)


def decoder(state, z, ratios, *, causal):
    """Signals ``(B, C, T' * prod(ratios))`` of ``(B, D, T')``."""
    at = "decoder.model."
    x = recurrent(state, f"{at}1", conv(state, f"{at}0.conv", z, causal=causal))
    n = 2
    for ratio in ratios:
        x = up(state, f"{at}{n + 1}.convtr", F.elu(x), causal=causal, stride=ratio)
        x = unit(state, f"{at}{n + 2}", x, causal)
        n += 3
    return conv(state, f"{at}{n + 1}.conv", F.elu(x), causal=causal)


def codes(state, z, count):
    """Indices ``(B, T', K)`` and the sum of their codes ``(B, D, T')``, level by level."""
    rest, found = z.mT, []
    for level in range(count):
        table = state[f"quantizer.vq.layers.{level}._codebook.embed"]
        index = (rest[..., None, :] - table).square().sum(-1).argmin(-1)
        rest = rest - table[index]
        found.append(index)
    return torch.stack(found, -1), z - rest.mT


def segmented(state, x, ratios, count, segment, step):
    """Codes, scales and audio of a network for short signals; triangles where they overlap."""
    parts, scales, total, weights = [], [], torch.zeros_like(x), torch.zeros(x.shape[-1])
    n = None
    for start in range(0, x.shape[-1], step):
        piece = x[..., start : start + segment]
        scale = piece.mean(1, keepdim=True).square().mean(-1, keepdim=True).sqrt() + 1e-8
        z = encoder(state, piece / scale, ratios, causal=False)
        index, q = codes(state, z, count)
        y = decoder(state, q, ratios, causal=False)
        n = n or y.shape[-1]
        t = torch.arange(1, n + 1) / (n + 1)
        w = (0.5 - (t - 0.5).abs())[: piece.shape[-1]]
        total[..., start : start + len(w)] += w * (y * scale)[..., : len(w)]
        weights[start : start + len(w)] += w
        parts.append(index)
        scales.append(scale[:, 0])
    return torch.cat(parts, 1), torch.cat(scales, 1), total / weights


def published(*, channels=1, width=2, dim=4, ratios=(4, 2), levels=3, size=16, group=False,
              both=False, seed=0):  # fmt: skip
    """A random state dict in the layout of the package."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def put(key, *shape, like=1.0):
        state[key] = torch.randn(*shape, generator=generator) * like

    def put_conv(key, *shape, kind="conv"):
        out = shape[1] if kind == "convtr" else shape[0]
        fan = shape[1] * shape[2]
        put(f"{key}.{kind}.bias", out, like=0.05)
        put(f"{key}.{kind}.weight" + ("" if group else "_v"), *shape, like=fan**-0.5)
        if group:
            put(f"{key}.norm.weight", out, like=0.2)
            state[f"{key}.norm.weight"] += 1
            put(f"{key}.norm.bias", out, like=0.05)
        else:
            state[f"{key}.{kind}.weight_g"] = torch.rand(shape[0], 1, 1, generator=generator) + 0.8

    def put_unit(key, n):
        put_conv(f"{key}.block.1.conv", n // 2, n, 3)
        put_conv(f"{key}.block.3.conv", n, n // 2, 1)
        put_conv(f"{key}.shortcut.conv", n, n, 1)

    def put_lstm(key, n, twice):
        lstm = nn.LSTM(n, n, 2, bidirectional=twice)
        for name, value in lstm.state_dict().items():
            put(f"{key}.lstm.{name}", *value.shape, like=0.3)

    n, at = width, 1
    put_conv("encoder.model.0.conv", width, channels, 7)
    for ratio in reversed(ratios):
        put_unit(f"encoder.model.{at}", n)
        put_conv(f"encoder.model.{at + 2}.conv", 2 * n, n, 2 * ratio)
        n, at = 2 * n, at + 3
    put_lstm(f"encoder.model.{at}", n, both)
    put_conv(f"encoder.model.{at + 2}.conv", dim, n * (1 + both), 7)
    put_conv("decoder.model.0.conv", n, dim, 7)
    put_lstm("decoder.model.1", n, False)
    at = 2
    for ratio in ratios:
        put_conv(f"decoder.model.{at + 1}.convtr", n, n // 2, 2 * ratio, kind="convtr")
        n, at = n // 2, at + 3
        put_unit(f"decoder.model.{at - 1}", n)
    put_conv(f"decoder.model.{at + 1}.conv", channels, width, 7)
    for level in range(levels):
        key = f"quantizer.vq.layers.{level}._codebook"
        put(f"{key}.embed", size, dim, like=0.5 * 0.7**level)
        put(f"{key}.embed_avg", size, dim)
        state[f"{key}.cluster_size"] = torch.rand(size, generator=generator) + 1
        state[f"{key}.inited"] = torch.ones(1)
    return state
