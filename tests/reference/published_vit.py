"""Vision transformers around codes as plain functions of upstream state dicts.

``make_*`` give random state dicts with the published keys of small sizes; ``run_*`` compute what a
picture in the model's own range becomes. Written from the papers, without the library's modules.
"""

import torch
import torch.nn.functional as F
from reference.transformer import affine, norm, prefixed, stack


def blocks(prefix, width, layers, hidden):
    shapes = {}
    for i in range(layers):
        name = f"{prefix}{i}."
        for part in ("ln_1", "ln_2"):
            shapes |= {f"{name}{part}.weight": (width,), f"{name}{part}.bias": (width,)}
        shapes |= {
            f"{name}attn.in_proj_weight": (3 * width, width),
            f"{name}attn.in_proj_bias": (3 * width,),
            f"{name}attn.out_proj.weight": (width, width),
            f"{name}attn.out_proj.bias": (width,),
            f"{name}mlp.c_fc.weight": (hidden, width),
            f"{name}mlp.c_fc.bias": (hidden,),
            f"{name}mlp.c_proj.weight": (width, hidden),
            f"{name}mlp.c_proj.bias": (width,),
        }
    return shapes


def pair(name, rows, columns):
    return {f"{name}.weight": (rows, *columns), f"{name}.bias": (rows,)}


def filled(shapes, seed=0, gain=1.0):
    """Random tensors: norm gains about 1, the others so large that every one matters."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        x = torch.randn(shape, generator=generator)
        fan_in = max(1, torch.Size(shape[1:]).numel())
        state[key] = 1 + 0.2 * x if "ln_" in key and "weight" in key else gain * x * fan_in**-0.5
    return state


def make_bsq_vit(bits=6, width=16, layers=2, side=2, patch=4, codes=0, seed=0):
    shapes = {
        "encoder.conv1.weight": (width, 3 * patch**2),
        **pair("decoder.ffn.0", 40, (width,)),
        **pair("decoder.conv_out", 3 * patch**2, (40,)),
        **pair("quant_embed", bits, (width,)),
        **pair("post_quant_embed", width, (bits,)),
    }
    for half in ("encoder", "decoder"):
        shapes[f"{half}.positional_embedding"] = (side**2, width)
        shapes |= pair(f"{half}.ln_pre", width, ()) | pair(f"{half}.ln_post", width, ())
        shapes |= blocks(f"{half}.transformer.resblocks.", width, layers, 4 * width)
    if codes:
        return filled({**shapes, "quantize.embedding.weight": (codes, bits)}, seed)
    state = filled(shapes, seed)
    state["quantize.basis"] = 2 ** torch.arange(bits - 1, -1, -1)
    state["quantize.group_basis"] = 2 ** torch.arange(bits // 2 - 1, -1, -1)
    return state


def trunk(state, half, h, heads):
    h = norm(state, f"{half}.ln_pre", h + state[f"{half}.positional_embedding"])
    h = stack(state, f"{half}.transformer.resblocks.", h, heads)
    return norm(state, f"{half}.ln_post", h)


def run_bsq_vit(state, x, heads, patch=4):
    """Latents (B, N, D), indices (B, N), codes (B, N, D) and pictures."""
    rows = F.unfold(x, patch, stride=patch).mT  # (B, N, 3 p p): channel, row, column
    h = trunk(state, "encoder", rows @ state["encoder.conv1.weight"].T, heads)
    z = affine(state, "quant_embed", h)
    if "quantize.embedding.weight" in state:
        codes = F.normalize(state["quantize.embedding.weight"], dim=1)
        indices = (F.normalize(z, dim=-1) @ codes.T).argmax(-1)
        z_q = codes[indices]
    else:
        bits = (z > 0).long()
        weights = [2 ** (z.shape[-1] - 1 - i) for i in range(z.shape[-1])]
        indices = sum(bits[..., i] * weight for i, weight in enumerate(weights))
        z_q = (2 * bits - 1) / z.shape[-1] ** 0.5
    h = trunk(state, "decoder", affine(state, "post_quant_embed", z_q), heads)
    rows = affine(state, "decoder.conv_out", affine(state, "decoder.ffn.0", h).tanh())
    return z, indices, z_q, F.fold(rows.mT, x.shape[2:], patch, stride=patch)


__all__ = ["make_bsq_vit", "prefixed", "run_bsq_vit"]
