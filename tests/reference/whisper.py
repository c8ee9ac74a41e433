"""Speech tokenizers of Whisper's shape as functions of a published state dict, by the formulas."""

import math

import torch
from reference import vocos
from torch.nn import functional as F

HF = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
    "proj": "self_attn.out_proj", "norm1": "self_attn_layer_norm", "norm2": "final_layer_norm",
    "up": "fc1", "down": "fc2",
}  # fmt: skip
OPENAI = {
    "q": "attn.query", "k": "attn.key", "v": "attn.value", "proj": "attn.out",
    "norm1": "attn_ln", "norm2": "mlp_ln", "up": "mlp.0", "down": "mlp.2",
}  # fmt: skip


def mel(hertz):
    """Slaney's scale: linear to 1 kHz, then 27 steps per factor of 6.4."""
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def hertz(mels):
    return 200 * mels / 3 if mels < 15 else 1000 * 6.4 ** ((mels - 15) / 27)


def bands(count):
    """Triangles of unit area ``(count, 201)`` over the bins of 400 samples of 16 kHz."""
    edges = [hertz(i * mel(8000) / (count + 1)) for i in range(count + 2)]
    filters = torch.zeros(count, 201, dtype=torch.float64)
    for m, (low, top, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for b in range(201):
            f = 40.0 * b
            height = max(0.0, min((f - low) / (top - low), (high - f) / (high - top)))
            filters[m, b] = height * 2 / (high - low)
    return filters


def log_mel(x, count, frames):
    """Spectra ``(B, count, frames)`` of ``x (B, T)``, frame t in the middle of sample 160 t."""
    x = x.double()
    if x.shape[1] < 201:
        x = torch.cat([x, x.new_zeros(x.shape[0], 201 - x.shape[1])], 1)
    last = x.shape[1] - 1
    place = 160 * torch.arange(frames)[:, None] + torch.arange(400) - 200
    place = (last - (last - place.abs()).abs()).clamp(0, last)  # reflected at both ends
    n = torch.arange(400, dtype=torch.float64)
    window = torch.sin(math.pi * n / 400) ** 2
    angle = 2 * math.pi * n[:, None] * torch.arange(201) / 400
    cut = x[:, place] * window
    power = (cut @ angle.cos()) ** 2 + (cut @ angle.sin()) ** 2
    level = (power @ bands(count).T).clamp(min=1e-10).log10()
    loudest = level.amax((1, 2), keepdim=True)
    return ((torch.maximum(level, loudest - 8) + 4) / 4).mT


def layer(state, key, names, x, *, heads, seen, rotary=False, eps=1e-5):
    """One pre-norm layer of rows ``x (B, N, W)``; ``seen[i][j]``: may row i look at row j."""
    names = {ours: f"{key}.{theirs}" for ours, theirs in names.items()}
    h = normed(state, names["norm1"], x, eps)
    q, k, v = (affine(state, names[part], h) for part in "qkv")
    size = x.shape[2] // heads
    out = torch.zeros_like(v)
    for n in range(heads):
        part = slice(n * size, (n + 1) * size)
        a, b = q[..., part], k[..., part]
        if rotary:
            a, b = turned(a), turned(b)
        score = (a @ b.mT) / math.sqrt(size)
        score = score.masked_fill(~seen, -math.inf)
        out[..., part] = score.softmax(-1) @ v[..., part]
    out = affine(state, names["proj"], out)
    memory = state.get(f"{key}.attn.fsmn_block.weight")
    if memory is not None:
        reach = memory.shape[-1] // 2
        out = out + v
        for shift in range(-reach, reach + 1):
            rows = torch.arange(v.shape[1]) + shift
            inside = ((rows >= 0) & (rows < v.shape[1]))[:, None]
            moved = v[:, rows.clamp(0, v.shape[1] - 1)] * inside
            out = out + memory[:, 0, shift + reach] * moved
    x = x + out
    h = affine(state, names["up"], normed(state, names["norm2"], x))
    return x + affine(state, names["down"], h * 0.5 * (1 + torch.erf(h / 2**0.5)))


def turned(x):
    """Channels c and c + half as the parts of a complex number, turned by the place's angle."""
    half = x.shape[-1] // 2
    rate = 10000.0 ** -(torch.arange(half) / half)
    turn = torch.polar(torch.ones(()), torch.arange(x.shape[1])[:, None] * rate)
    z = torch.complex(x[..., :half], x[..., half:]) * turn
    return torch.cat([z.real, z.imag], -1)


def affine(state, key, x):
    y = x @ state[f"{key}.weight"].T
    return y + state[f"{key}.bias"] if f"{key}.bias" in state else y


def normed(state, key, x, eps=1e-5):
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (var + eps).sqrt() * state[f"{key}.weight"] + state[f"{key}.bias"]


def convolved(state, key, x, stride, causal=False):
    x = F.pad(x, (2, 0) if causal else (1, 1))
    h = F.conv1d(x, state[f"{key}.weight"], state[f"{key}.bias"], stride)
    return h * 0.5 * (1 + torch.erf(h / 2**0.5))


def s3(state, x, *, heads, strides, eps=1e-5):
    """Rows ``(B, N, W)`` of an S3 tokenizer for signals ``x (B, T)`` of up to 30 s."""
    h = log_mel(x, state["encoder.conv1.weight"].shape[1], max(1, x.shape[1] // 160)).float()
    for n, stride in zip((1, 2), strides, strict=True):
        h = convolved(state, f"encoder.conv{n}", h, stride)
    h = h.mT
    table = state.get("encoder.positional_embedding")
    if table is not None:
        h = h + table[: h.shape[1]]
    seen = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool)
    n = 0
    while f"encoder.blocks.{n}.mlp.0.weight" in state:
        h = layer(
            state, f"encoder.blocks.{n}", OPENAI, h,
            heads=heads, seen=seen, rotary=table is None, eps=eps,
        )  # fmt: skip
        n += 1
    return h


def glm(state, x, config):
    """Rows ``(B, N, W)`` in front of the codebook of GLM-4-Voice for ``x (B, T)`` of up to 30 s."""
    samples, kernel = x.shape[1], config["pooling_kernel_size"]
    x = F.pad(x, (0, -samples % (320 * kernel)))
    h = log_mel(x, state["conv1.weight"].shape[1], x.shape[1] // 160).float()
    causal = config["encoder_causal_convolution"]
    h = convolved(state, "conv2", convolved(state, "conv1", h, 1, causal), 2, causal).mT
    h = h + state["embed_positions.weight"][: h.shape[1]]
    block, fill = config["quantize_causal_block_size"], 320
    for n in range(config["quantize_position"]):
        count = h.shape[1]
        seen = torch.zeros(count, count, dtype=torch.bool)
        for i in range(count):
            for j in range(count):
                near = block is None or j <= i or i // block == j // block
                seen[i, j] = near and j * fill < samples
        h = layer(state, f"layers.{n}", HF, h, heads=config["encoder_attention_heads"], seen=seen)
        if n + 1 == config["pooling_position"]:
            groups = h.unflatten(1, (-1, kernel))
            h = groups.mean(2) if config["pooling_type"] == "avg" else groups.amax(2)
            block, fill = block and block // kernel, fill * kernel
    return h


def nearest(rows, codes):
    return (rows[..., None, :] - codes).square().sum(-1).argmin(-1)[..., None]


def put(state, key, *shape, generator, bias=True):
    fan = math.prod(shape[1:])
    state[f"{key}.weight"] = torch.randn(*shape, generator=generator) / fan**0.5
    if bias:
        state[f"{key}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)


def put_layers(state, prefix, names, generator, *, width, hidden, layers, memory=0):
    for n in range(layers):
        key = f"{prefix}{n}"
        for part in ("q", "k", "v", "proj"):
            name = f"{key}.{names[part]}"
            put(state, name, width, width, generator=generator, bias=part != "k")
        for part in ("norm1", "norm2"):
            name = f"{key}.{names[part]}"
            state[f"{name}.weight"] = 1 + 0.2 * torch.randn(width, generator=generator)
            state[f"{name}.bias"] = 0.2 * torch.randn(width, generator=generator)
        put(state, f"{key}.{names['up']}", hidden, width, generator=generator)
        put(state, f"{key}.{names['down']}", width, hidden, generator=generator)
        if memory:
            name = f"{key}.attn.fsmn_block"
            put(state, name, width, 1, memory, generator=generator, bias=False)


def published_s3(version, *, width=12, mels=20, layers=2, codes=12, positions=1500):
    """A random state dict in the layout of the S3Tokenizer package."""
    generator, state = torch.Generator().manual_seed(version), {}
    if version == 1:
        state["encoder.positional_embedding"] = torch.randn(positions, width, generator=generator)
    put(state, "encoder.conv1", width, mels, 3, generator=generator)
    put(state, "encoder.conv2", width, width, 3, generator=generator)
    sizes = {"width": width, "hidden": 4 * width, "layers": layers}
    memory = 5 if version > 1 else 0
    put_layers(state, "encoder.blocks.", OPENAI, generator, memory=memory, **sizes)
    if version == 1:
        table = torch.randn(codes, width, generator=generator) / width**0.5
        state["quantizer._codebook.embed"] = table
    else:
        put(state, "quantizer._codebook.project_down", 8, width, generator=generator)
    return state


def published_glm(config, *, width=8, mels=20, hidden=20, codes=16, positions=40):
    """A random state dict in the layout of GLM-4-Voice's tokenizer, layers behind the codes too."""
    generator, state = torch.Generator().manual_seed(4), {}
    put(state, "conv1", width, mels, 3, generator=generator)
    put(state, "conv2", width, width, 3, generator=generator)
    for name, count in (("", positions), ("2", -(-positions // config["pooling_kernel_size"]))):
        table = torch.randn(count, width, generator=generator)
        state[f"embed_positions{name}.weight"] = table
    sizes = {"width": width, "hidden": hidden, "layers": config["encoder_layers"]}
    put_layers(state, "layers.", HF, generator, **sizes)
    state["codebook.weight"] = torch.randn(codes, width, generator=generator)
    state["ema_count"] = torch.rand(codes, generator=generator) + 1
    state["ema_weight"] = state["codebook.weight"] * state["ema_count"][:, None]
    return {f"model.encoder.{key}": value for key, value in state.items()}


def xy_tokens(state, x, *, heads):
    """Indices ``(n, K)`` of XY-Tokenizer for one signal ``x (T,)``, padded to 30 s as published."""
    seconds = F.pad(x, (0, 480000 - len(x)))[None]
    mels = state["semantic_encoder.conv1.weight"].shape[1]
    spectra = log_mel(seconds, mels, 3000).float()
    there = -(-len(x) // 160) // 2  # of 1500 positions
    sides = []
    for name in ("semantic_encoder", "acoustic_encoder"):
        h = convolved(state, f"{name}.conv1", spectra, 1)
        h = convolved(state, f"{name}.conv2", h, 2).mT
        sides.append(stack(state, name, h, heads=heads, there=there))
    sides[0] = stack(state, "semantic_encoder_adapter", sides[0], heads=heads, there=there)
    h = affine(state, "pre_rvq_adapter.proj", torch.cat(sides, dim=-1))
    h = stack(state, "pre_rvq_adapter", h, heads=heads, there=there)
    rows = h.unflatten(1, (-1, 4))
    gate, up = (
        torch.einsum("bnkc,ock->bno", rows, state[f"downsample.{name}_proj.weight"])
        for name in ("gate", "up")
    )
    wide = rows.flatten(2) + affine(state, "downsample.down_proj", gate * gate.sigmoid() * up)
    rest = quantizer_map(state, "input_proj", normed(state, "downsample.layer_norm", wide))[0]
    found = []
    for n in range(len([key for key in state if key.endswith(".codebook")])):
        codes = state[f"quantizer.quantizers.{n}.codebook"]
        index = nearest(rest, codes)[:, 0]
        rest = rest - codes[index]
        found.append(index)
    return torch.stack(found, dim=1)[: len(x) // 1280]


def xy_samples(state, indices, *, heads):
    """Samples ``(1280 n,)`` of indices ``(n, K)`` of up to 30 s."""
    codes = [state[f"quantizer.quantizers.{n}.codebook"] for n in range(indices.shape[1])]
    q = sum(table[column] for table, column in zip(codes, indices.T, strict=True))[None]
    h = affine(state, "post_rvq_adapter.proj", quantizer_map(state, "output_proj", q))
    h = stack(state, "post_rvq_adapter", h, heads=heads, there=len(indices))
    h = affine(state, "post_rvq_adapter.out_proj", h)
    h = torch.einsum("bnc,cok->bnko", h, state["upsample.up_conv.weight"]).flatten(1, 2)
    h = stack(state, "acoustic_decoder", h, heads=heads, there=h.shape[1]).mT
    count = 2 * h.shape[2]
    for n, stride in ((1, 2), (2, 1)):
        key = f"acoustic_decoder.deconv{n}"
        h = F.conv_transpose1d(h, state[f"{key}.weight"], state[f"{key}.bias"], stride)
        h = h * 0.5 * (1 + torch.erf(h / 2**0.5))
    inside = {key.removeprefix("vocos."): value for key, value in state.items()}
    return vocos.decode(inside, h[..., :count], hop=160)[0]


def quantizer_map(state, name, x):
    key = f"quantizer.{name}"
    v = state[f"{key}.weight_v"][..., 0]
    weight = v * state[f"{key}.weight_g"][..., 0] / v.norm(dim=1, keepdim=True)
    return x @ weight.T + state[f"{key}.bias"]


def stack(state, name, h, *, heads, there):
    h = h + state[f"{name}.positional_embedding"][: h.shape[1]]
    seen = (torch.arange(h.shape[1]) < there).expand(h.shape[1], -1)
    n = 0
    while f"{name}.layers.{n}.fc1.weight" in state:
        h = layer(state, f"{name}.layers.{n}", HF, h, heads=heads, seen=seen)
        n += 1
    return normed(state, f"{name}.layer_norm", h)


def published_xy(*, width=8, hidden=12, mels=20, levels=3, codes=16, code_dim=6):
    """A random state dict in the layout of XY-Tokenizer's authors."""
    generator, state = torch.Generator().manual_seed(5), {}
    wide = 4 * width

    def make(key, *shape, bias=True, out=None):
        put(state, key, *shape, generator=generator, bias=False)
        if bias:
            state[f"{key}.bias"] = 0.1 * torch.randn(out or shape[0], generator=generator)

    for name in ("semantic_encoder", "acoustic_encoder"):
        make(f"{name}.conv1", width, mels, 3)
        make(f"{name}.conv2", width, width, 3)
    for name, count in (("deconv1", width), ("deconv2", mels)):
        make(f"acoustic_decoder.{name}", width, count, 3, out=count)
    make("pre_rvq_adapter.proj", width, 2 * width)
    make("post_rvq_adapter.proj", width, wide)
    make("post_rvq_adapter.out_proj", wide, width)
    for name in ("gate_proj", "up_proj"):
        make(f"downsample.{name}", wide, width, 4, bias=False)
    make("downsample.down_proj", wide, wide, bias=False)
    make("upsample.up_conv", wide, width, 4, bias=False)
    for name, shape in (("input_proj", (code_dim, wide, 1)), ("output_proj", (wide, code_dim, 1))):
        make(f"quantizer.{name}", *shape)
        state[f"quantizer.{name}.weight_v"] = state.pop(f"quantizer.{name}.weight")
        state[f"quantizer.{name}.weight_g"] = 1 + torch.rand(shape[0], 1, 1, generator=generator)
    for n in range(levels):
        table = torch.randn(codes, code_dim, generator=generator) * 0.7**n
        key = f"quantizer.quantizers.{n}"
        state |= {f"{key}.codebook": table, f"{key}.embed_avg": table * 2}
        state |= {f"{key}.cluster_size": torch.full((codes,), 2.0)}
        state |= {f"{key}.inited": torch.ones(1, dtype=torch.bool)}
    for name in ("semantic_encoder", "semantic_encoder_adapter", "acoustic_encoder",
                 "pre_rvq_adapter", "post_rvq_adapter", "acoustic_decoder"):  # fmt: skip
        count = 375 if name == "post_rvq_adapter" else 1500
        table = torch.randn(count, width, generator=generator)
        state[f"{name}.positional_embedding"] = table
        sizes = {"width": width, "hidden": hidden, "layers": 1}
        put_layers(state, f"{name}.layers.", HF, generator, **sizes)
    for name, size in [(f"{name}.layer_norm", width) for name in (
        "semantic_encoder", "semantic_encoder_adapter", "acoustic_encoder", "pre_rvq_adapter",
        "post_rvq_adapter", "acoustic_decoder",
    )] + [("downsample.layer_norm", wide)]:  # fmt: skip
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(size, generator=generator)
        state[f"{name}.bias"] = 0.2 * torch.randn(size, generator=generator)
    inside = vocos.published(dim=mels, width=8, inner=12, depth=1, size=640, ids=0)
    return state | {f"vocos.{key}": value for key, value in inside.items()}
