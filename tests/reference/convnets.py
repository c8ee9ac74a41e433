"""The MAGVIT2 and MaskGIT lines of image CNNs as plain functions of upstream state dicts.

Written from the papers' formulas and the upstream key names; nothing of the package is used, so
that importers and networks can be judged by it. Sizes are read from the keys.
"""

import hashlib
import math

import torch
import torch.nn.functional as F

EPS = 1e-6


def fill(shapes):
    """Tensors of these shapes, a function of their names alone: of unit gain, norms near one."""
    state = {}
    for key, shape in shapes.items():
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        if len(shape) > 1:
            state[key] = noise / math.prod(shape[1:]) ** 0.5
        else:
            state[key] = 1 + 0.1 * noise if ".norm" in key and "weight" in key else 0.05 * noise
    return state


def count(state, prefix):
    """How many numbered parts lie under a prefix."""
    numbers = {k[len(prefix) :].split(".")[0] for k in state if k.startswith(prefix)}
    return len([n for n in numbers if n.isdigit()])


def norm(state, name, x):
    """Group normalisation over 32 groups, with a gain and a bias where there are any."""
    batch, channels = x.shape[:2]
    groups = x.reshape(batch, 32, -1)
    mean = groups.mean(-1, keepdim=True)
    var = (groups - mean).square().mean(-1, keepdim=True)
    y = ((groups - mean) / (var + EPS).sqrt()).reshape(x.shape)
    if f"{name}.weight" not in state:
        return y
    return y * state[f"{name}.weight"].view(1, channels, 1, 1) + state[f"{name}.bias"].view(
        1, channels, 1, 1
    )


def swish(x):
    return x * torch.sigmoid(x)


def conv(state, name, x, pad=None):
    """Convolution; by default the kernel is centred on each pixel."""
    weight = state[f"{name}.weight"]
    side = weight.shape[-1] // 2
    return F.conv2d(
        F.pad(x, pad or (side,) * 4), weight, state.get(f"{name}.bias"), stride=2 if pad else 1
    )


def block(state, name, x, from_output):
    h = conv(state, f"{name}.conv1", swish(norm(state, f"{name}.norm1", x)))
    h = conv(state, f"{name}.conv2", swish(norm(state, f"{name}.norm2", h)))
    if f"{name}.nin_shortcut.weight" not in state:
        return x + h
    return h + conv(state, f"{name}.nin_shortcut", h if from_output else x)


def blocks(state, name, x, from_output):
    for j in range(count(state, f"{name}.")):
        x = block(state, f"{name}.{j}", x, from_output)
    return x


def end(state, half, x):
    return conv(state, f"{half}.conv_out", swish(norm(state, f"{half}.norm_out", x)))


# The MAGVIT2 line: Open-MAGVIT2, WeTok, SimVQ ------------------------------------------------


def magvit2_encode(state, x):
    """Pictures (B, 3, H, W) in [-1, 1] to latents (B, z, h, w)."""
    h = conv(state, "encoder.conv_in", x)
    for i in range(count(state, "encoder.down.")):
        h = blocks(state, f"encoder.down.{i}.block", h, False)
        if f"encoder.down.{i}.downsample.weight" in state:
            h = conv(state, f"encoder.down.{i}.downsample", h, pad=(1, 1, 1, 1))
    return end(state, "encoder", blocks(state, "encoder.mid_block", h, False))


def magvit2_decode(state, q, noise=None):
    """Codes (B, z, h, w), and noise of a generative decoder, to pictures (B, 3, H, W)."""
    h = conv(state, "decoder.conv_in", q if noise is None else torch.cat([q, noise], 1))
    h = blocks(state, "decoder.mid_block", h, False)
    for i in reversed(range(count(state, "decoder.up."))):
        if f"decoder.adaptive.{i}.gamma.weight" in state:
            h = adaptive(state, f"decoder.adaptive.{i}", h, q)
        h = blocks(state, f"decoder.up.{i}.block", h, False)
        if f"decoder.up.{i}.upsample.conv1.weight" in state:
            h = cells(conv(state, f"decoder.up.{i}.upsample.conv1", h))
    return end(state, "decoder", h)


def adaptive(state, name, x, q):
    flat = q.flatten(2)
    mean = flat.mean(-1)
    var = (flat - mean[..., None]).square().sum(-1) / (flat.shape[-1] - 1)
    gain = (var + EPS).sqrt() @ state[f"{name}.gamma.weight"].T + state[f"{name}.gamma.bias"]
    bias = mean @ state[f"{name}.beta.weight"].T + state[f"{name}.beta.bias"]
    return gain[..., None, None] * norm(state, name, x) + bias[..., None, None]


def cells(x):
    """Channel block (a, b) becomes pixel (2h + a, 2w + b)."""
    a = x.chunk(4, dim=1)
    y = x.new_empty(x.shape[0], x.shape[1] // 4, 2 * x.shape[2], 2 * x.shape[3])
    for k in range(4):
        y[..., k // 2 :: 2, k % 2 :: 2] = a[k]
    return y


def magvit2_shapes(width, mult, depth, dim, *, adaptive=True, noise=0):
    """Upstream keys and shapes."""
    levels, shapes = len(mult), {}

    def weight(name, cout, cin, side, bias=True):
        shapes[f"{name}.weight"] = (cout, cin, side, side)
        if bias:
            shapes[f"{name}.bias"] = (cout,)

    widths = [width * m for m in mult]
    weight("encoder.conv_in", width, 3, 3, bias=False)
    before = [width, *widths]
    for i, cout in enumerate(widths):
        _block_shapes(shapes, f"encoder.down.{i}.block", before[i], cout, depth, "input")
        if i < levels - 1:
            weight(f"encoder.down.{i}.downsample", cout, cout, 3)
    after = [*widths, widths[-1]]
    for i, cout in enumerate(widths):
        _block_shapes(shapes, f"decoder.up.{i}.block", after[i + 1], cout, depth, "input")
        if i:
            weight(f"decoder.up.{i}.upsample.conv1", 4 * cout, cout, 3)
        for kind in ("gamma", "beta") if adaptive else ():
            shapes[f"decoder.adaptive.{i}.{kind}.weight"] = (after[i + 1], dim)
            shapes[f"decoder.adaptive.{i}.{kind}.bias"] = (after[i + 1],)
    for half in ("encoder", "decoder"):
        _block_shapes(shapes, f"{half}.mid_block", widths[-1], widths[-1], depth, "input")
    weight("encoder.conv_out", dim, widths[-1], 1)
    weight("decoder.conv_in", widths[-1], dim + noise, 3)
    weight("decoder.conv_out", 3, width * mult[0], 3)
    _norm_shapes(shapes, "encoder.norm_out", widths[-1])
    _norm_shapes(shapes, "decoder.norm_out", widths[0])
    return shapes


# The MaskGIT line: MaskGIT-VQGAN, VQGAN+, MaskBit --------------------------------------------


def maskgit_encode(state, x):
    """Pictures (B, 3, H, W) in [0, 1] to latents (B, z, h, w)."""
    name, mid = _spelling(state)
    h = conv(state, "encoder.conv_in", x)
    levels = count(state, "encoder.down.")
    for i in range(levels):
        h = blocks(state, f"encoder.down.{i}.{name}", h, True)
        if f"encoder.down.{i}.down_conv.weight" in state:
            h = conv(state, f"encoder.down.{i}.down_conv", h, pad=same(h.shape[2:]))
        elif i < levels - 1:
            h = halved(h)
    return end(state, "encoder", blocks(state, f"encoder.{mid}", h, True))


def maskgit_decode(state, q):
    """Codes (B, z, h, w) to pictures (B, 3, H, W), not clamped."""
    name, mid = _spelling(state)
    h = blocks(state, f"decoder.{mid}", conv(state, "decoder.conv_in", q), True)
    levels = range(count(state, "decoder.up."))
    # only the level that runs last has no convolution behind its blocks
    backwards = "decoder.up.0.upsample_conv.weight" not in state
    for i in reversed(levels) if backwards else levels:
        h = blocks(state, f"decoder.up.{i}.{name}", h, True)
        if f"decoder.up.{i}.upsample_conv.weight" in state:
            h = conv(state, f"decoder.up.{i}.upsample_conv", doubled(h))
    return end(state, "decoder", h)


def doubled(x):
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def halved(x):
    rows = x[..., 0::2, :] + x[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]) / 4


def same(size):
    """TensorFlow's padding for kernel 3 and stride 2: left, right, top, bottom."""
    pads = []
    for n in reversed(size):
        total = max((math.ceil(n / 2) - 1) * 2 + 3 - n, 0)
        pads += [total // 2, total - total // 2]
    return tuple(pads)


def maskgit_shapes(width, mult, depth, dim, *, strided, spelling="res_blocks", backwards=False):
    """Upstream keys and shapes; ``backwards`` numbers the decoder's levels from the finest."""
    levels, shapes = len(mult), {}
    mid = "mid.res_blocks" if spelling == "res_blocks" else "mid"

    def weight(name, cout, cin, side, bias=True):
        shapes[f"{name}.weight"] = (cout, cin, side, side)
        if bias:
            shapes[f"{name}.bias"] = (cout,)

    widths = [width * m for m in mult]
    weight("encoder.conv_in", width, 3, 3, bias=False)
    before, after = [width, *widths], [*widths, widths[-1]]
    for i, cout in enumerate(widths):
        _block_shapes(shapes, f"encoder.down.{i}.{spelling}", before[i], cout, depth, "output")
        if i < levels - 1 and strided:
            weight(f"encoder.down.{i}.down_conv", cout, cout, 3)
        k = i if backwards else levels - 1 - i
        _block_shapes(shapes, f"decoder.up.{k}.{spelling}", after[i + 1], cout, depth, "output")
        if i:
            weight(f"decoder.up.{k}.upsample_conv", cout, cout, 3)
    for half in ("encoder", "decoder"):
        _block_shapes(shapes, f"{half}.{mid}", widths[-1], widths[-1], depth, "output")
    weight("encoder.conv_out", dim, widths[-1], 1)
    weight("decoder.conv_in", widths[-1], dim, 3)
    weight("decoder.conv_out", 3, widths[0], 3)
    _norm_shapes(shapes, "encoder.norm_out", widths[-1])
    _norm_shapes(shapes, "decoder.norm_out", widths[0])
    return shapes


def _spelling(state):
    if any(".res_blocks." in key for key in state):
        return "res_blocks", "mid.res_blocks"
    return "block", "mid"


def _norm_shapes(shapes, name, width):
    shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)


def _block_shapes(shapes, name, cin, cout, depth, shortcut_of):
    for j in range(depth):
        source = cin if j == 0 else cout
        _norm_shapes(shapes, f"{name}.{j}.norm1", source)
        _norm_shapes(shapes, f"{name}.{j}.norm2", cout)
        shapes[f"{name}.{j}.conv1.weight"] = (cout, source, 3, 3)
        shapes[f"{name}.{j}.conv2.weight"] = (cout, cout, 3, 3)
        if source != cout:
            reads = source if shortcut_of == "input" else cout
            shapes[f"{name}.{j}.nin_shortcut.weight"] = (cout, reads, 1, 1)


# Heads ----------------------------------------------------------------------------------------


def signs(z, bits):
    """Latents (B, z, h, w) to indices (B, h, w, K) with the first channel as the lowest bit."""
    positive = (z > 0).long().movedim(1, -1)
    parts = positive.split(bits, dim=-1)
    return torch.stack([sum(p[..., i] << i for i in range(p.shape[-1])) for p in parts], dim=-1)


def sign_codes(z):
    return torch.where(z > 0, 1.0, -1.0)


def nearest(z, table):
    """Latents (B, z, h, w) to indices (B, h, w, 1) and the gap to the second nearest row."""
    rows = z.movedim(1, -1).double()
    distance = (rows[..., None, :] - table.double()).square().sum(-1)
    best = distance.sort(dim=-1).values
    return distance.argmin(-1, keepdim=True), best[..., 1] - best[..., 0]


# Judgement ------------------------------------------------------------------------------------


def assert_same(tokenizer, x, z, indices, sure, codes, pictures, **options):
    """Compare a tokenizer on pictures (B, 3, H, W) in [-1, 1] with what the functions above made.

    ``sure`` (B, h, w, K) says which indices no rounding can change; ``pictures`` are in [-1, 1].
    """
    with torch.no_grad():
        assert near(tokenizer.encoder(x).movedim(-1, 1), z)
        assert near(tokenizer.quantizer.decode(indices).movedim(-1, 1), codes)
    found = tokenizer.encode(x).indices
    assert found.shape == indices.shape
    assert sure.float().mean() > 0.9
    assert torch.equal(found[sure], indices[sure])
    assert near(tokenizer.decode(indices, raw=True, **options), pictures)


def near(a, b):
    return a.shape == b.shape and float((a - b).abs().max() / b.abs().max()) < 2e-5
