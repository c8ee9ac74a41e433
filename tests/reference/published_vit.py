"""Vision transformers around codes as plain functions of upstream state dicts.

``make_*`` give random state dicts with the published keys of small sizes; ``run_*`` compute what a
picture in the model's own range becomes. Written from the papers, without the library's modules.
"""

import torch
import torch.nn.functional as F
from reference.transformer import affine, norm, stack


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


def make_bsq_vit(bits=6, width=16, layers=2, side=2, patch=4, codes=0, seed=0, ratio=4):
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
        shapes |= blocks(f"{half}.transformer.resblocks.", width, layers, ratio * width)
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


def make_titok(
    width=16, dim=6, tokens=5, side=2, patch=4, codes=24, *,
    legacy=True, text=False, vae=False, seed=0, layers=2, proxies=10,
):  # fmt: skip
    """``codes`` of the quantizer, ``proxies`` of the tokenizer that the first stage imitates."""
    rows = 2 * dim if vae else dim
    shapes = {
        "latent_tokens": (tokens, width),
        **pair("encoder.patch_embed", width, (3, patch, patch)),
        **pair("encoder.conv_out", rows, (width, 1, 1)),
        **pair("decoder.decoder_embed", width, (dim,)),
        "decoder.mask_token": (1, 1, width),
    }
    for half in ("encoder", "decoder"):
        shapes[f"{half}.class_embedding"] = (1, width)
        shapes[f"{half}.positional_embedding"] = (side**2 + 1, width)
        shapes[f"{half}.latent_token_positional_embedding"] = (tokens, width)
        shapes |= pair(f"{half}.ln_pre", width, ()) | pair(f"{half}.ln_post", width, ())
        shapes |= blocks(f"{half}.transformer.", width, layers, 4 * width)
    if legacy:
        shapes |= pair("decoder.ffn.0", 2 * width, (width, 1, 1))
        shapes |= pair("decoder.ffn.2", proxies, (2 * width, 1, 1))
    else:
        shapes |= pair("decoder.ffn.0", 3 * patch**2, (width, 1, 1))
        shapes |= pair("decoder.conv_out", 3, (3, 3, 3))
    if text:
        shapes |= pair("decoder.text_guidance_proj", width, (768,))
        shapes["decoder.text_guidance_positional_embedding"] = (77, width)
    if not vae:
        shapes["quantize.embedding.weight"] = (codes, dim)
    return filled(shapes, seed)


def titok_latents(state, x, heads, legacy):
    """Pictures (B, 3, H, W) in [0, 1] to (B, N, rows of the last map)."""
    batch, tokens = x.shape[0], state["latent_tokens"].shape[0]
    weight = state["encoder.patch_embed.weight"]
    h = F.conv2d(x, weight, state["encoder.patch_embed.bias"], stride=weight.shape[-1])
    h = torch.cat([state["encoder.class_embedding"].expand(batch, 1, -1), h.flatten(2).mT], 1)
    h = h + state["encoder.positional_embedding"]
    latents = state["latent_tokens"] + state["encoder.latent_token_positional_embedding"]
    h = norm(state, "encoder.ln_pre", torch.cat([h, latents.expand(batch, -1, -1)], 1))
    h = stack(state, "encoder.transformer.", h, heads)[:, -tokens:]
    h = norm(state, "encoder.ln_post", h)
    columns = h.reshape(batch, h.shape[2], tokens) if legacy else h.mT  # (B, W, N)
    return affine(state, "encoder.conv_out", columns.mT)


def titok_codes(state, z, unit):
    table = state["quantize.embedding.weight"]
    if unit:
        z, table = F.normalize(z, dim=-1), F.normalize(table, dim=-1)
    indices = torch.cdist(z, table.expand(len(z), -1, -1)).argmin(-1)
    return indices, table[indices]


def titok_decode(state, z_q, heads, legacy, words=None):
    """Codes (B, n, D) to scores (B, 10, h, w), or to pictures (B, 3, H, W) in [0, 1]."""
    batch, n = z_q.shape[:2]
    positions = state["decoder.positional_embedding"]
    side = round((len(positions) - 1) ** 0.5)
    blank = state["decoder.mask_token"].expand(batch, side**2, -1)
    h = torch.cat([state["decoder.class_embedding"].expand(batch, 1, -1), blank], 1) + positions
    places = state["decoder.latent_token_positional_embedding"][:n]
    parts = [h, affine(state, "decoder.decoder_embed", z_q) + places]
    if words is not None:
        rows = affine(state, "decoder.text_guidance_proj", words)
        parts.append(rows + state["decoder.text_guidance_positional_embedding"])
    h = norm(state, "decoder.ln_pre", torch.cat(parts, 1))
    h = stack(state, "decoder.transformer.", h, heads)[:, 1 : 1 + side**2]
    h = norm(state, "decoder.ln_post", h)
    if legacy:
        scores = affine(state, "decoder.ffn.2", affine(state, "decoder.ffn.0", h).tanh())
        return scores.mT.unflatten(2, (side, side))
    rows = affine(state, "decoder.ffn.0", h)  # each row: row, column, channel
    patch = round((rows.shape[-1] / 3) ** 0.5)
    x = rows.new_zeros(batch, 3, side * patch, side * patch)
    for k in range(side**2):
        top, left = k // side * patch, k % side * patch
        square = rows[:, k].reshape(batch, patch, patch, 3).permute(0, 3, 1, 2)
        x[:, :, top : top + patch, left : left + patch] = square
    return F.conv2d(x, state["decoder.conv_out.weight"], state["decoder.conv_out.bias"], padding=1)
