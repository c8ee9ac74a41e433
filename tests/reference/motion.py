"""T2M-GPT's and MoMask's network written from the paper on upstream keys, and random weights."""

import torch
from torch.nn import functional as F


def make(width=6, channels=23, dim=4, codes=7, levels=2, depth=3, stages=None, seed=0):
    """Random tensors under upstream keys; residual codebooks where there are stages."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def conv(name, out, into, kernel):
        state[f"{name}.weight"] = torch.randn(out, into, kernel, generator=generator) / (into * 2)
        state[f"{name}.bias"] = torch.randn(out, generator=generator) / 9

    def units(name):
        for unit in range(depth):
            conv(f"{name}.model.{unit}.conv1", width, width, 3)
            conv(f"{name}.model.{unit}.conv2", width, width, 1)

    conv("encoder.model.0", width, channels, 3)
    for level in range(levels):
        conv(f"encoder.model.{2 + level}.0", width, width, 4)
        units(f"encoder.model.{2 + level}.1")
    conv(f"encoder.model.{2 + levels}", dim, width, 3)
    conv("decoder.model.0", width, dim, 3)
    for level in range(levels):
        units(f"decoder.model.{2 + level}.0")
        conv(f"decoder.model.{2 + level}.2", width, width, 3)
    conv(f"decoder.model.{2 + levels}", width, width, 3)
    conv(f"decoder.model.{4 + levels}", channels, width, 3)
    for stage in range(stages or 1):
        name = "quantizer" if stages is None else f"quantizer.layers.{stage}"
        state[f"{name}.codebook"] = torch.randn(codes, dim, generator=generator) / 2**stage
    return state


def run_conv(state, name, x, stride=1, dilation=1):
    weight = state[f"{name}.weight"]
    padding = 1 if stride > 1 else dilation * (weight.shape[-1] // 2)
    return F.conv1d(x, weight, state[f"{name}.bias"], stride, padding, dilation)


def run_units(state, name, x, depth=3):
    for unit in range(depth):
        h = run_conv(
            state, f"{name}.model.{unit}.conv1", x.relu(), dilation=3 ** (depth - 1 - unit)
        )
        x = x + run_conv(state, f"{name}.model.{unit}.conv2", h.relu())
    return x


def encode(state, x, levels=2):
    h = run_conv(state, "encoder.model.0", x).relu()
    for level in range(levels):
        h = run_conv(state, f"encoder.model.{2 + level}.0", h, stride=2)
        h = run_units(state, f"encoder.model.{2 + level}.1", h)
    return run_conv(state, f"encoder.model.{2 + levels}", h)


def decode(state, z, levels=2):
    h = run_conv(state, "decoder.model.0", z).relu()
    for level in range(levels):
        h = run_units(state, f"decoder.model.{2 + level}.0", h)
        h = run_conv(state, f"decoder.model.{2 + level}.2", h.repeat_interleave(2, -1))
    h = run_conv(state, f"decoder.model.{2 + levels}", h).relu()
    return run_conv(state, f"decoder.model.{4 + levels}", h)


def quantize(state, z):
    """Indices (B, T, K) and codes (B, D, T) of latents (B, D, T)."""
    tables = [value for key, value in state.items() if key.endswith("codebook")]
    rest, total, indices = z.mT, 0, []
    for table in tables:
        index = (rest[..., None, :] - table).square().sum(-1).argmin(-1)
        indices.append(index)
        total, rest = total + table[index], rest - table[index]
    return torch.stack(indices, -1), total.mT
