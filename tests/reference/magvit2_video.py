"""Open-MAGVIT2's video network from its formulas; ``n`` is ``cosmos_video.Tensors``."""

from dataclasses import dataclass

from torch.nn import functional as F


@dataclass
class Shape:
    width: int = 128
    mult: tuple = (1, 2, 2, 4)
    blocks: int = 4
    z: int = 18


def conv(n, key, x, out, kernel=(3, 3, 3), stride=(1, 1, 1), bias=True):
    return n.conv(f"{key}.conv_1", x, out, kernel, stride, lead="zeros", bias=bias)


def norm(n, key, x, affine=True):
    return n.norm(key, x, groups=32, per_frame=False, affine=affine)


def block(n, key, x, out):
    h = conv(n, f"{key}.conv1", F.silu(norm(n, f"{key}.norm1", x)), out, bias=False)
    h = conv(n, f"{key}.conv2", F.silu(norm(n, f"{key}.norm2", h)), out, bias=False)
    if x.shape[1] != out:
        x = conv(n, f"{key}.nin_shortcut", x, out, (1, 1, 1), bias=False)
    return x + h


def encode(n, x, shape):
    """Latents ``(B, z, t, h, w)``."""
    x = conv(n, "encoder.conv_in", x, shape.width, bias=False)
    for i, mult in enumerate(shape.mult):
        for j in range(shape.blocks):
            x = block(n, f"encoder.down.{i}.block.{j}", x, mult * shape.width)
        if i < len(shape.mult) - 1:
            stride = (1 if mult == 1 else 2, 2, 2)
            x = conv(n, f"encoder.down.{i}.downsample", x, x.shape[1], stride=stride)
    for j in range(shape.blocks):
        x = block(n, f"encoder.mid_block.{j}", x, x.shape[1])
    return conv(n, "encoder.conv_out", F.silu(norm(n, "encoder.norm_out", x)), shape.z, (1, 1, 1))


def adaptive(n, key, x, z):
    flat, c = z.flatten(2), x.shape[1]
    std = (flat.var(-1, correction=1) + 1e-6).sqrt()
    gain = std @ n.get(f"{key}.gamma.weight", c, z.shape[1]).T + n.get(f"{key}.gamma.bias", c)
    offset = flat.mean(-1) @ n.get(f"{key}.beta.weight", c, z.shape[1]).T
    offset = offset + n.get(f"{key}.beta.bias", c)
    shaped = [v[:, :, None, None, None] for v in (gain, offset)]
    return shaped[0] * norm(n, key, x, affine=False) + shaped[1]


def up(n, key, x, f):
    """Channels of a cell are ordered by frame, row, column; then by the new channels."""
    c = x.shape[1]
    y = conv(n, f"{key}.conv1", x, c * f[0] * f[1] * f[2])
    out = y.new_zeros(len(y), c, *(a * b for a, b in zip(y.shape[2:], f, strict=True)))
    places = ((t, h, w) for t in range(f[0]) for h in range(f[1]) for w in range(f[2]))
    for i, (t, h, w) in enumerate(places):
        out[:, :, t :: f[0], h :: f[1], w :: f[2]] = y[:, i * c : (i + 1) * c]
    keep = [0, *range(f[0], out.shape[2])]
    return out[:, :, keep]


def decode(n, z, shape):
    """Videos of quantized latents ``(B, z, t, h, w)``."""
    x = conv(n, "decoder.conv_in", z, shape.mult[-1] * shape.width)
    for j in range(shape.blocks):
        x = block(n, f"decoder.mid_block.{j}", x, x.shape[1])
    for i in range(len(shape.mult) - 1, -1, -1):
        x = adaptive(n, f"decoder.adaptive.{i}", x, z)
        for j in range(shape.blocks):
            x = block(n, f"decoder.up.{i}.block.{j}", x, shape.mult[i] * shape.width)
        if i:
            frames = 1 if shape.mult[i - 1] == 1 else 2
            x = up(n, f"decoder.up.{i}.upsample", x, (frames, 2, 2))
    return conv(n, "decoder.conv_out", F.silu(norm(n, "decoder.norm_out", x)), 3)
