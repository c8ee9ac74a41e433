"""VQGAN and what descends from it, as plain functions of upstream keys.

The second implementation that imports are compared with: whole tensors, explicit sums, no modules.
A ``Net`` without a state invents the tensors that a network asks for, under their upstream keys, so
running one on a picture makes a checkpoint.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Net:
    """Tensors by upstream key: those given, or random ones where there are none."""

    state: dict[str, Tensor] = field(default_factory=dict)
    fixed: bool = False
    seed: int = 0

    def __post_init__(self):
        self.generator = torch.Generator().manual_seed(self.seed)
        self.asked: set[str] = set()

    def get(self, key, *shape, gain=None, shift=0.0):
        self.asked.add(key)
        if key not in self.state and not self.fixed:
            fan = torch.tensor(shape[1:]).prod().item() if len(shape) > 1 else 100
            gain = fan**-0.5 if gain is None else gain
            self.state[key] = torch.randn(*shape, generator=self.generator) * gain + shift
        return self.state[key]

    def conv(self, key, x, out, kernel=3, **options):
        weight = self.get(f"{key}.weight", out, x.shape[1], kernel, kernel)
        options.setdefault("padding", kernel // 2)
        return F.conv2d(x, weight, self.get(f"{key}.bias", out), **options)

    def linear(self, key, x, out, leaf="."):
        return x @ self.get(f"{key}{leaf}weight", out, x.shape[-1]).T + self.get(
            f"{key}{leaf}bias", out
        )

    def groups(self, key, x):
        """32 groups at zero mean and unit variance, with a gain and a bias per channel."""
        g = x.unflatten(1, (32, -1)).flatten(2)
        g = (g - g.mean(-1, keepdim=True)) / (g.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        c = x.shape[1]
        gain, bias = self.get(f"{key}.weight", c, shift=1.0), self.get(f"{key}.bias", c)
        return g.reshape(x.shape) * gain[:, None, None] + bias[:, None, None]

    def rows(self, key, x):
        """Each row at zero mean and unit variance."""
        n = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        c = x.shape[-1]
        return n * self.get(f"{key}.weight", c, shift=1.0) + self.get(f"{key}.bias", c)


@dataclass
class Shape:
    """Sizes of a network, and which names it has: "vqgan", "llamagen" or "var"."""

    ch: int = 32
    mult: tuple[int, ...] = (1, 2)
    blocks: int = 1
    z: int = 16
    d: int = 8
    downs: int | None = None
    attended: tuple[int, ...] = ()  # levels of the encoder
    attended_up: tuple[int, ...] = ()  # levels of the decoder
    names: str = "vqgan"
    kernel: int = 1
    channels: int = 3


def swish(x):
    return x * torch.sigmoid(x)


def doubled(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def res(net, key, x, out):
    h = net.conv(f"{key}.conv1", swish(net.groups(f"{key}.norm1", x)), out)
    h = net.conv(f"{key}.conv2", swish(net.groups(f"{key}.norm2", h)), out)
    return h + (x if x.shape[1] == out else net.conv(f"{key}.nin_shortcut", x, out, 1))


def attend(net, key, x, fused=False):
    c = x.shape[1]
    n = net.groups(f"{key}.norm", x)
    if fused:
        q, k, v = net.conv(f"{key}.qkv", n, 3 * c, 1).flatten(2).split(c, 1)
    else:
        q, k, v = (net.conv(f"{key}.{part}", n, c, 1).flatten(2) for part in "qkv")
    weights = torch.softmax(q.mT @ k / c**0.5, -1)  # (B, N, N), rows look at columns
    return x + net.conv(f"{key}.proj_out", (v @ weights.mT).reshape(x.shape), c, 1)


def middle(net, part, x, shape):
    kind = {"vqgan": ("block_1", "attn_1", "block_2"), "var": ("block_1", "attn_1", "block_2")}
    first, second, third = kind.get(shape.names, ("0", "1", "2"))
    x = res(net, f"{part}.mid.{first}", x, x.shape[1])
    x = attend(net, f"{part}.mid.{second}", x, shape.names == "var")
    return res(net, f"{part}.mid.{third}", x, x.shape[1])


def level(net, key, x, out, count, attended, shape):
    block = "res" if shape.names == "llamagen" else "block"
    for j in range(count):
        x = res(net, f"{key}.{block}.{j}", x, out)
        if attended:
            x = attend(net, f"{key}.attn.{j}", x, shape.names == "var")
    return x


def trunk(net, x, shape):
    """Return the encoder's features behind its middle blocks."""
    stem = "encoder.conv_blocks" if shape.names == "llamagen" else "encoder.down"
    levels = len(shape.mult)
    downs = levels - 1 if shape.downs is None else shape.downs
    x = net.conv("encoder.conv_in", x, shape.ch)
    for i, factor in enumerate(shape.mult):
        x = level(
            net, f"{stem}.{i}", x, shape.ch * factor, shape.blocks, i in shape.attended, shape
        )
        if i < downs:
            x = net.conv(
                f"{stem}.{i}.downsample.conv", F.pad(x, (0, 1, 0, 1)), x.shape[1],
                stride=2, padding=0,
            )  # fmt: skip
    return middle(net, "encoder", x, shape)


def encode(net, x, shape):
    h = swish(net.groups("encoder.norm_out", trunk(net, x, shape)))
    return net.conv("quant_conv", net.conv("encoder.conv_out", h, shape.z), shape.d, shape.kernel)


def decode(net, z_q, shape):
    stem = "decoder.conv_blocks" if shape.names == "llamagen" else "decoder.up"
    levels = len(shape.mult)
    downs = levels - 1 if shape.downs is None else shape.downs
    x = net.conv("post_quant_conv", z_q, shape.z, shape.kernel)
    x = net.conv("decoder.conv_in", x, shape.ch * shape.mult[-1])
    x = middle(net, "decoder", x, shape)
    for i in reversed(range(levels)):
        key = f"{stem}.{levels - 1 - i if shape.names == 'llamagen' else i}"
        out = shape.ch * shape.mult[i]
        x = level(net, key, x, out, shape.blocks + 1, i in shape.attended_up, shape)
        if i >= levels - downs:
            x = net.conv(f"{key}.upsample.conv", doubled(x), out)
    return net.conv("decoder.conv_out", swish(net.groups("decoder.norm_out", x)), shape.channels)


def unit(x, dim=-1):
    return x / x.square().sum(dim, keepdim=True).sqrt().clamp(min=1e-12)


def nearest(rows, codes):
    return (rows[:, None] - codes[None]).square().sum(-1).argmin(-1)


def pick(z, codes, search):
    """Return indices ``(B, h, w)`` and codes ``(B, d, h, w)`` of ``z (B, d, h, w)``."""
    indices = search(z.movedim(1, -1).reshape(-1, z.shape[1]), codes)
    indices = indices.reshape(z.shape[0], *z.shape[2:])
    return indices, codes[indices].movedim(-1, 1)


def haar(x):
    """One Haar step: bands of sums and differences of 2x2 cells."""
    a, b, c, d = (x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
    return torch.cat([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], 1) / 4


def unhaar(x):
    """The way back: every pixel of a cell is a sum of the bands with their signs."""
    low, vertical, horizontal, diagonal = x.chunk(4, 1)
    y = x.new_zeros(x.shape[0], x.shape[1] // 4, 2 * x.shape[2], 2 * x.shape[3])
    for i, down in enumerate((1, -1)):
        for j, right in enumerate((1, -1)):
            pixel = low + down * vertical + right * horizontal + down * right * diagonal
            y[..., i::2, j::2] = pixel
    return y


def finite_scalars(z, levels):
    """Return FSQ's indices ``(B, h, w)`` and codes of ``z (B, d, h, w)``."""
    index, digits, place = torch.zeros_like(z[:, 0], dtype=torch.long), [], 1
    for k, count in enumerate(levels):
        half = (count - 1) * 1.001 / 2
        offset = 0.5 if count % 2 == 0 else 0.0
        bounded = torch.tanh(z[:, k] + torch.tensor(offset / half).atanh()) * half - offset
        rounded = bounded.round()
        digits.append(rounded / (count // 2))
        index += place * (rounded + count // 2).long()
        place *= count
    return index, torch.stack(digits, 1)


def raised(net, h, s, sides, ticks):
    """What the codes ``(B, d, side, side)`` of scale s add to the sum on the last grid."""
    last = (sides[-1],) * 2
    h = h if s == len(sides) - 1 else F.interpolate(h, size=last, mode="bicubic")
    phi = min(range(len(ticks)), key=lambda k: abs(ticks[k] - s / (len(sides) - 1)))
    return 0.5 * h + 0.5 * net.conv(f"quantize.quant_resi.qresi_ls.{phi}", h, h.shape[1])


def scales(net, z, sides, size, ticks):
    """VAR's chain: return indices ``(B, L)`` of all scales and the sum of their codes."""
    codes = net.get("quantize.embedding.weight", size, z.shape[1], gain=0.6)
    rest, total, columns = z, torch.zeros_like(z), []
    for s, side in enumerate(sides):
        last = s == len(sides) - 1
        small = rest if last else F.interpolate(rest, size=(side, side), mode="area")
        index, h = pick(small, codes, nearest)
        h = raised(net, h, s, sides, ticks)
        total, rest = total + h, rest - h
        columns.append(index.flatten(1))
    return torch.cat(columns, 1), total


def adapter(net, name, h, layers, heads):
    """FQGAN's head: a transformer over all positions."""
    b, c, height, width = h.shape
    key = f"encoder.{name}.0"
    x = h.flatten(2).mT + net.get(f"{key}.positional_embedding", height * width, c, gain=0.5)
    x = net.rows(f"{key}.ln_pre", x)
    for i in range(layers):
        block = f"{key}.transformer.{i}"
        qkv = net.linear(f"{block}.attn.in_proj", net.rows(f"{block}.ln_1", x), 3 * c, "_")
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.split(c, -1))
        seen = torch.softmax(q @ k.mT / (c / heads) ** 0.5, -1) @ v
        x = x + net.linear(f"{block}.attn.out_proj", seen.transpose(1, 2).flatten(2), c)
        up = net.linear(f"{block}.mlp.c_fc", net.rows(f"{block}.ln_2", x), 4 * c)
        gelu = up * 0.5 * (1 + torch.erf(up / 2**0.5))
        x = x + net.linear(f"{block}.mlp.c_proj", gelu, c)
    return net.rows(f"{key}.ln_post", x).mT.reshape(b, c, height, width)


# the last bit of a float64 decides between equally near ones at scales 2 and 7 of 10
TICKS = np.linspace(1 / 12, 1 - 1 / 12, 4).tolist()


@dataclass
class Made:
    """What a network makes of pictures."""

    latents: Tensor
    indices: Tensor
    quantized: Tensor
    picture: Tensor


def run_vq(net, x, shape, size, search=nearest, key="quantize.embedding.weight", l2=False):
    """VQGAN, IBQ (``search`` by products) and LlamaGen (``l2``)."""
    z = encode(net, x, shape)
    codes = net.get(key, size, shape.d, gain=0.6)
    codes = unit(codes) if l2 else codes
    indices, z_q = pick(unit(z, 1) if l2 else z, codes, search)
    return Made(z, indices, z_q, decode(net, z_q, shape))


def by_product(rows, codes):
    return (rows @ codes.T).argmax(-1)


def run_gumbel(net, x, shape, size):
    z = encode(net, x, shape)
    indices = net.conv("quantize.proj", z, size, 1).argmax(1)
    z_q = net.get("quantize.embed.weight", size, shape.d, gain=0.6)[indices].movedim(-1, 1)
    return Made(z, indices, z_q, decode(net, z_q, shape))


def run_var(net, x, shape, sides, size):
    z = encode(net, x, shape)
    indices, z_q = scales(net, z, sides, size, TICKS)
    net.get("quantize.ema_vocab_hit_SV", len(sides), size)
    return Made(z, indices, z_q, decode(net, z_q, shape))


def run_cosmos(net, x, shape, levels, steps):
    for _ in range(steps):
        x = haar(x)
    z = encode(net, x, shape)
    indices, z_q = finite_scalars(z, levels)
    y = decode(net, z_q, shape)
    for _ in range(steps):
        y = unhaar(y)
    return Made(z, indices, z_q, y)


def adapted(net, short, y, shape):
    """Channels of one codebook of FQGAN, from what its adapter made."""
    y = net.conv(f"encoder.conv_out_{short}", swish(net.groups(f"encoder.norm_out_{short}", y)),
                 shape.z)  # fmt: skip
    return net.conv(f"quant_conv_{short}", y, shape.d, 1)


def run_fqgan(net, x, shape, size, kinds, layers, heads):
    """``kinds``: pairs of what an adapter and its convolutions are called."""
    h = trunk(net, x, shape)
    latents, indices, parts = [], [], []
    for name, short in kinds:
        y = adapter(net, name, h, layers, heads)
        latents.append(adapted(net, short, y, shape))
        codes = unit(net.get(f"quantize_{short}.embedding.weight", size, shape.d, gain=1.0))
        index, z_q = pick(unit(latents[-1], 1), codes, nearest)
        indices.append(index)
        parts.append(z_q)
    z_q = torch.cat(parts, 1)
    return Made(torch.cat(latents, 1), torch.stack(indices, -1), z_q, decode(net, z_q, shape))
