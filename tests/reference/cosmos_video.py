"""Cosmos' video network from its formulas: plain convolutions on padded tensors, attention in full.

Tensors have the upstream names; ``get(key, *shape)`` gives them, or makes them.
"""

from dataclasses import dataclass, field

import torch
from torch.nn import functional as F


@dataclass
class Tensors:
    """Random tensors by upstream key, made when they are asked for."""

    device: str = "cpu"
    state: dict = field(default_factory=dict)

    def get(self, key, *shape, shift=0.0):
        if key not in self.state:
            fan = torch.Size(shape[1:]).numel() if len(shape) > 1 else 100
            value = torch.empty(shape, device=self.device)
            if self.device == "cpu":
                value.normal_(0, fan**-0.5).add_(shift)
            self.state[key] = value
        return self.state[key]

    def conv(self, key, x, out, kernel, stride=(1, 1, 1), sides=True, lead="replicate", bias=True):
        weight = self.get(f"{key}.weight", out, x.shape[1], *kernel)
        offset = self.get(f"{key}.bias", out) if bias else None
        before = x[:, :, :1] if lead == "replicate" else torch.zeros_like(x[:, :, :1])
        x = torch.cat([before] * (kernel[0] - 1) + [x], 2)
        h, w = (kernel[1] // 2, kernel[2] // 2) if sides else (0, 0)
        return F.conv3d(F.pad(x, (w, w, h, h)), weight, offset, stride=stride)

    def norm(self, key, x, groups=1, per_frame=True, affine=True):
        b, c, t, h, w = x.shape
        y = x.reshape(b, groups, c // groups, t, h, w)
        axes = (2, 4, 5) if per_frame else (2, 3, 4, 5)
        y = y - y.mean(axes, keepdim=True)
        y = y / (y.square().mean(axes, keepdim=True) + 1e-6).sqrt()
        y = y.reshape(x.shape)
        if not affine:
            return y
        gain, offset = self.get(f"{key}.weight", c, shift=1.0), self.get(f"{key}.bias", c)
        return y * gain[:, None, None, None] + offset[:, None, None, None]


@dataclass
class Shape:
    width: int = 128
    mult: tuple = (2, 4, 4)
    blocks: int = 2
    z: int = 16
    d: int = 6
    patch: int = 4
    down: tuple = ((1, 0), (0, 0))  # space, time of each level but the last
    up: tuple = ((1, 0), (0, 0))  # the coarsest level first


def haar(x, patch):
    x = torch.cat([x[:, :, :1]] * (patch - 1) + [x], 2)
    root = 2**-0.5
    for _ in range(patch.bit_length() - 1):
        bands = []
        for signs in ((a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)):
            y = x
            for axis, sign in zip((2, 3, 4), signs, strict=True):
                even = y.index_select(axis, torch.arange(0, y.shape[axis], 2, device=x.device))
                odd = y.index_select(axis, torch.arange(1, y.shape[axis], 2, device=x.device))
                y = (even + sign * odd) * root
            bands.append(y / (2 * 2**0.5))
        x = torch.cat(bands, 1)
    return x


def unhaar(x, patch):
    for _ in range(patch.bit_length() - 1):
        channels = x.shape[1] // 8
        y = x.new_zeros(x.shape[0], channels, *(2 * n for n in x.shape[2:]))
        for band, signs in enumerate((a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)):
            part = x[:, band * channels : (band + 1) * channels]
            for t, h, w in ((t, h, w) for t in (0, 1) for h in (0, 1) for w in (0, 1)):
                sign = signs[0] ** t * signs[1] ** h * signs[2] ** w
                y[:, :, t::2, h::2, w::2] += sign * part
        x = y
    return x[:, :, patch - 1 :]


def pair(n, key, x, out):
    x = n.conv(f"{key}.0.conv3d", x, out, (1, 3, 3))
    return n.conv(f"{key}.1.conv3d", x, out, (3, 1, 1))


def block(n, key, x, out):
    h = pair(n, f"{key}.conv1", F.silu(n.norm(f"{key}.norm1.norm", x)), out)
    h = pair(n, f"{key}.conv2", F.silu(n.norm(f"{key}.norm2.norm", h)), out)
    if x.shape[1] != out:
        x = n.conv(f"{key}.nin_shortcut.conv3d", x, out, (1, 1, 1))
    return x + h


def attention(n, key, x, time):
    y, c = n.norm(f"{key}.norm.norm", x), x.shape[1]
    q, k, v = (n.conv(f"{key}.{name}.conv3d", y, c, (1, 1, 1)) for name in "qkv")
    if time:
        scores = torch.einsum("bcthw,bcshw->bhwts", q, k) * c**-0.5
        future = torch.ones(x.shape[2], x.shape[2], dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf).softmax(-1)
        seen = torch.einsum("bhwts,bcshw->bcthw", scores, v)
    else:
        flat = [m.flatten(3) for m in (q, k, v)]
        scores = (torch.einsum("bctp,bctq->btpq", *flat[:2]) * c**-0.5).softmax(-1)
        seen = torch.einsum("btpq,bctq->bctp", scores, flat[2]).reshape(x.shape)
    return x + n.conv(f"{key}.proj_out.conv3d", seen, c, (1, 1, 1))


def middle(n, side, x):
    c = x.shape[1]
    x = block(n, f"{side}.mid.block_1", x, c)
    x = attention(n, f"{side}.mid.attn_1.0", x, time=False)
    x = attention(n, f"{side}.mid.attn_1.1", x, time=True)
    return block(n, f"{side}.mid.block_2", x, c)


def unused(n, key, kernels, c):
    for number, kernel in enumerate(kernels, 1):
        n.get(f"{key}.conv{number}.conv3d.weight", c, c, *kernel)
        n.get(f"{key}.conv{number}.conv3d.bias", c)


def down(n, key, x, space, time):
    c = x.shape[1]
    unused(n, key, ((1, 3, 3), (3, 1, 1), (1, 1, 1)), c)
    if space:
        x = F.pad(x, (0, 1, 0, 1))
        mean = sum(x[..., i : x.shape[3] - 1 + i : 2, j : x.shape[4] - 1 + j : 2]
                   for i in (0, 1) for j in (0, 1)) / 4  # fmt: skip
        x = mean + n.conv(f"{key}.conv1.conv3d", x, c, (1, 3, 3), (1, 2, 2), sides=False)
    if time:
        first = x[:, :, :1]
        mean = torch.cat([first, (x[:, :, 1::2] + x[:, :, 2::2]) / 2], 2)
        x = mean + n.conv(f"{key}.conv2.conv3d", x, c, (3, 1, 1), (2, 1, 1))
    return n.conv(f"{key}.conv3.conv3d", x, c, (1, 1, 1)) if space or time else x


def up(n, key, x, space, time):
    c = x.shape[1]
    unused(n, key, ((3, 1, 1), (1, 3, 3), (1, 1, 1)), c)
    if time:
        x = torch.cat([x[:, :, :1], torch.stack([x[:, :, 1:]] * 2, 3).flatten(2, 3)], 2)
        x = x + n.conv(f"{key}.conv1.conv3d", x, c, (3, 1, 1))
    if space:
        x = torch.stack([torch.stack([x, x], -1).flatten(-2)] * 2, -2).flatten(-3, -2)
        x = x + n.conv(f"{key}.conv2.conv3d", x, c, (1, 3, 3))
    return n.conv(f"{key}.conv3.conv3d", x, c, (1, 1, 1)) if space or time else x


def encode(n, x, shape):
    """Latents ``(B, D, t, h, w)``."""
    x = pair(n, "encoder.conv_in", haar(x, shape.patch), shape.width)
    for i, mult in enumerate(shape.mult):
        for j in range(shape.blocks):
            x = block(n, f"encoder.down.{i}.block.{j}", x, mult * shape.width)
        if i < len(shape.mult) - 1:
            x = down(n, f"encoder.down.{i}.downsample", x, *shape.down[i])
    x = F.silu(n.norm("encoder.norm_out.norm", middle(n, "encoder", x)))
    x = pair(n, "encoder.conv_out", x, shape.z)
    return n.conv("quant_conv.conv3d", x, shape.d, (1, 1, 1))


def decode(n, z, shape):
    """Videos of quantized latents ``(B, D, t, h, w)``."""
    x = n.conv("post_quant_conv.conv3d", z, shape.z, (1, 1, 1))
    x = middle(n, "decoder", pair(n, "decoder.conv_in", x, shape.mult[-1] * shape.width))
    count = len(shape.mult)
    for i in range(count - 1, -1, -1):
        for j in range(shape.blocks + 1):
            x = block(n, f"decoder.up.{i}.block.{j}", x, shape.mult[i] * shape.width)
        if i:
            x = up(n, f"decoder.up.{i}.upsample", x, *shape.up[count - 1 - i])
    x = F.silu(n.norm("decoder.norm_out.norm", x))
    return unhaar(pair(n, "decoder.conv_out", x, 3 * shape.patch**3), shape.patch)


def digest(state):
    """The names and shapes of tensors, as one number."""
    import hashlib

    lines = sorted(f"{k} {'x'.join(map(str, v.shape))}" for k, v in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
