"""DAC, SNAC and BigCodec as functions of their published tensors, from the formulas alone."""

import re

import torch
from torch.nn import functional as F


def shapes(family: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a tiny checkpoint: two levels of strides 2 and 5, two codebooks."""
    deep = family == "snac"
    enc, dec = ("CodecEnc.block", "generator.model") if family == "bigcodec" else (
        "encoder.block", "decoder.model")  # fmt: skip
    found = conv(f"{enc}.0", 4, 1, 7)
    width = 4
    for i, ratio in enumerate((2, 5), 1):
        for unit in range(3):
            found |= residual(f"{enc}.{i}.block.{unit}", width, family)
        found |= act(f"{enc}.{i}.block.3", width, family)
        found |= conv(f"{enc}.{i}.block.4", 2 * width, width, 2 * ratio)
        width *= 2
    dim = 16 if deep else 6
    if deep:
        found |= conv(f"{enc}.3", 16, 1, 7)
    else:
        at = 3
        if family == "bigcodec":
            found |= lstm(f"{enc}.3.lstm", 16)
            at = 4
        found |= act(f"{enc}.{at}", 16, family) | conv(f"{enc}.{at + 1}", dim, 16, 3)
    found |= conv(f"{dec}.0", 16, 1 if deep else dim, 7)
    at = 1
    if deep:
        found |= conv(f"{dec}.1", 16, 16, 1)
        at = 2
    if family == "bigcodec":
        found |= lstm(f"{dec}.1.lstm", 16)
        at = 2
    for ratio in (5, 2):
        found |= act(f"{dec}.{at}.block.0", width, family)
        found |= conv(f"{dec}.{at}.block.1", width, width // 2, 2 * ratio, out=width // 2)
        width //= 2
        if deep:
            found |= conv(f"{dec}.{at}.block.2.linear", width, width, 1, bias=False)
        for unit in range(3):
            found |= residual(f"{dec}.{at}.block.{2 + deep + unit}", width, family)
        at += 1
    found |= act(f"{dec}.{at}", 4, family) | conv(f"{dec}.{at + 1}", 1, 4, 7)
    return found | heads(family, dim)


def heads(family, dim):
    found = {}
    for i in range(1 if family == "bigcodec" else 2):
        name = {"bigcodec": f"generator.quantizer.layers.{i}"}.get(
            family, f"quantizer.quantizers.{i}"
        )
        taps = () if family == "bigcodec" else (1,)
        found |= conv(f"{name}.in_proj", 3, dim, *taps) | conv(f"{name}.out_proj", dim, 3, *taps)
        found[f"{name}.{'_' * (family == 'bigcodec')}codebook.weight"] = (16, 3)
    return found


def conv(name, after, before, *taps, out=None, bias=True):
    sizes = {
        f"{name}.weight_g": (after, *[1] * (1 + len(taps))),
        f"{name}.weight_v": (after, before, *taps),
    }
    return sizes | ({f"{name}.bias": (out or after,)} if bias else {})


def act(name, width, family):
    if family != "bigcodec":
        return {f"{name}.alpha": (1, width, 1)}
    return {f"{name}.act.alpha": (width,), f"{name}.act.beta": (width,),
            f"{name}.upsample.filter": (1, 1, 12)}  # fmt: skip


def residual(name, width, family):
    found = act(f"{name}.block.0", width, family) | act(f"{name}.block.2", width, family)
    found |= conv(f"{name}.block.1", width, 1 if family == "snac" else width, 7)
    return found | conv(f"{name}.block.3", width, width, 1)


def lstm(name, width):
    gates = 4 * width
    return {
        f"{name}.{part}_l{i}": (gates, width) if part[0] == "w" else (gates,)
        for i in range(2)
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }


def fill(family: str) -> dict[str, torch.Tensor]:
    """Random tensors, of a size at which nothing saturates."""
    draw = torch.Generator().manual_seed(3)
    state = {}
    for key, size in shapes(family).items():
        x = torch.randn(size, generator=draw)
        gain = 0.5 + 0.1 * x
        small = key.endswith(("bias", "beta")) or "lstm" in key
        own = key.endswith(("weight_g", "alpha"))
        state[key] = gain if own else 0.2 * x if small else x
    return state


def published(state):
    """The same tensors under the names of torch's parametrizations."""
    new = {"weight_g": "original0", "weight_v": "original1"}
    return {
        re.sub(r"weight_[gv]$", lambda m: f"parametrizations.weight.{new[m[0]]}", key): value
        for key, value in state.items()
    }


def weight(state, name):
    v = state[f"{name}.weight_v"]
    norm = v.square().sum(tuple(range(1, v.ndim)), keepdim=True).sqrt()
    return state[f"{name}.weight_g"] * v / norm


def convolve(state, name, x, stride=1, dilation=1):
    w = weight(state, name)
    pad = -(-((w.shape[-1] - 1) * dilation + 1 - stride) // 2)
    groups = x.shape[1] // w.shape[1]
    return F.conv1d(
        x, w, state.get(f"{name}.bias"), stride, padding=pad, dilation=dilation, groups=groups
    )


def activate(state, name, x):
    if f"{name}.alpha" in state:
        alpha = state[f"{name}.alpha"]
        return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)
    a, b = (state[f"{name}.act.{part}"].exp()[:, None] for part in ("alpha", "beta"))
    y = resample(x, up=True)
    return resample(y + torch.sin(a * y) ** 2 / (b + 1e-9), up=False)


def resample(x, up):
    """Twice or half the samples, by a Kaiser-windowed sinc of 12 taps."""
    beta = 0.1102 * (2.285 * 5 * torch.pi * 1.2 + 7.95 - 8.7)
    beta = beta if 2.285 * 5 * torch.pi * 1.2 + 7.95 > 50 else (
        0.5842 * (2.285 * 5 * torch.pi * 1.2 + 7.95 - 21) ** 0.4
        + 0.07886 * (2.285 * 5 * torch.pi * 1.2 + 7.95 - 21)
    )  # fmt: skip
    time = torch.arange(12, dtype=torch.float64) - 5.5
    taps = torch.kaiser_window(12, False, beta, dtype=torch.float64) * torch.sinc(time / 2)
    taps = (taps / taps.sum()).float()[None, None].expand(x.shape[1], 1, -1)
    if up:
        y = F.pad(x, (5, 5), "replicate")
        y = 2 * F.conv_transpose1d(y, taps, stride=2, groups=x.shape[1])
        return y[..., 15:-15]
    return F.conv1d(F.pad(x, (5, 6), "replicate"), taps, stride=2, groups=x.shape[1])


def units(state, name, x, first):
    for j, dilation in enumerate((1, 3, 9)):
        block = f"{name}.{first + j}.block"
        y = activate(state, f"{block}.0", x)
        y = activate(state, f"{block}.2", convolve(state, f"{block}.1", y, dilation=dilation))
        x = x + convolve(state, f"{block}.3", y)
    return x


def recur(state, name, x):
    net = torch.nn.LSTM(x.shape[1], x.shape[1], 2)
    net.load_state_dict({k.split("lstm.")[1]: v for k, v in state.items() if f"{name}.lstm." in k})
    return x + net(x.permute(2, 0, 1))[0].permute(1, 2, 0)


def encode(state, x, family):
    """Latents ``(B, D, T)`` of padded signals ``(B, 1, L)``."""
    name = "CodecEnc.block" if family == "bigcodec" else "encoder.block"
    x = convolve(state, f"{name}.0", x)
    for i, ratio in enumerate((2, 5), 1):
        x = units(state, f"{name}.{i}.block", x, 0)
        x = activate(state, f"{name}.{i}.block.3", x)
        x = convolve(state, f"{name}.{i}.block.4", x, stride=ratio)
    if family == "snac":
        return convolve(state, f"{name}.3", x)
    at = 3
    if family == "bigcodec":
        x, at = recur(state, f"{name}.3", x), 4
    return convolve(state, f"{name}.{at + 1}", activate(state, f"{name}.{at}", x))


def decode(state, z, family, noise=None):
    """Signals ``(B, 1, L)`` of latents; ``noise`` are draws ``(B, 1, L_i)`` for every level."""
    name = "generator.model" if family == "bigcodec" else "decoder.model"
    x, at = convolve(state, f"{name}.0", z), 1
    if family == "snac":
        x, at = convolve(state, f"{name}.1", x), 2
    if family == "bigcodec":
        x, at = recur(state, f"{name}.1", x), 2
    for ratio in (5, 2):
        x = activate(state, f"{name}.{at}.block.0", x)
        up = f"{name}.{at}.block.1"
        x = F.conv_transpose1d(
            x, weight(state, up), state[f"{up}.bias"], ratio, -(-ratio // 2),
            output_padding=0 if family == "dac" else ratio % 2,
        )  # fmt: skip
        first = 2
        if family == "snac":
            draw = torch.randn(x.shape[0], 1, x.shape[2], generator=noise)
            x = x + draw * convolve(state, f"{name}.{at}.block.2.linear", x)
            first = 3
        x = units(state, f"{name}.{at}.block", x, first)
        at += 1
    x = activate(state, f"{name}.{at}", x)
    return torch.tanh(convolve(state, f"{name}.{at + 1}", x))


def quantize(state, z, family, strides=(1, 1)):
    """Codes ``(B, T / stride)`` of every level, and the sum of what they stand for."""
    bare = family == "bigcodec"
    name = "generator.quantizer.layers" if bare else "quantizer.quantizers"
    rest, total, codes = z, torch.zeros_like(z), []
    for i, stride in enumerate(strides):
        at = f"{name}.{i}"
        low = rest.unflatten(2, (-1, stride)).mean(-1)
        maps = [weight(state, f"{at}.{side}_proj").flatten(1) for side in ("in", "out")]
        e = torch.einsum("kd,bdt->btk", maps[0], low) + state[f"{at}.in_proj.bias"]
        table = state[f"{at}.{'_' * bare}codebook.weight"]
        cosine = F.normalize(e, dim=-1) @ F.normalize(table, dim=-1).T
        codes.append(cosine.argmax(-1))
        q = (table[codes[-1]] @ maps[1].T + state[f"{at}.out_proj.bias"]).mT
        q = q.repeat_interleave(stride, dim=2)
        rest, total = rest - q, total + q
    return codes, total
