"""ALIT and KARL as plain functions of upstream state dicts, written from the papers' formulas."""

import torch
import torch.nn.functional as F
from reference.convnets import fill, maskgit_decode, maskgit_encode, maskgit_shapes
from reference.transformer import affine, norm, stack

ERRORS = [
    0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.09, 0.1,
    0.12, 0.14, 0.16, 0.18, 0.2, 0.24, 0.28, 0.32, 0.38,
]  # fmt: skip


def mage(state):
    """The base under the names that the functions of convnets read."""
    base = {}
    for key, value in state.items():
        if key.startswith("base_tokenizer.vqgan."):
            name = key.removeprefix("base_tokenizer.vqgan.").replace(
                "upsample.conv", "upsample_conv"
            )
            base[name.replace("mid.block_1", "mid.0").replace("mid.block_2", "mid.1")] = value
    return base


def make(family, width=40, side=4, z=16, layers=2):
    """A small state dict of a family with the keys of the published ones."""
    shapes, pairs, norms = _base_shapes(z, codes=24), {}, []
    pairs["patch_embed"] = (width - z, 3, 8, 8)
    pairs["decoder.ffn.0"], pairs["decoder.ffn.2"] = (2 * width, width), (24, 2 * width)
    pairs["pre_quantizer_mlp"] = (6, width)
    shapes["quantize.embedding.weight"] = (32, 6)
    norms += ["encoder_ln_pre", "encoder_ln_post", "decoder.ln_pre", "decoder.ln_post"]
    for name in (
        f"{half}.transformer.{i}" for half in ("encoder", "decoder") for i in range(layers)
    ):
        norms += [f"{name}.ln_1", f"{name}.ln_2"]
        shapes[f"{name}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{name}.attn.in_proj_bias"] = (3 * width,)
        pairs[f"{name}.attn.out_proj"] = (width, width)
        pairs[f"{name}.mlp.c_fc"] = (4 * width, width)
        pairs[f"{name}.mlp.c_proj"] = (width, 4 * width)
    own = _alit_shapes if family == "alit" else _karl_shapes
    own(shapes, pairs, norms, width, side * side)
    for name, shape in pairs.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    state = fill(shapes)
    for key in [key for key in state if "_embedding" in key or "token" in key]:
        state[key] = state[key] * (1 if key.startswith("base") else 3)
    for name in norms:
        made = fill({f"{name}.norm.weight": (width,), f"{name}.norm.bias": (width,)})
        state |= {key.replace(".norm.", "."): value for key, value in made.items()}
    if family == "karl":
        state["halting_mlp.2.weight"] *= 4
    return state


def _base_shapes(z, codes):
    shapes = maskgit_shapes(32, (1, 1, 1, 2), 2, z, strided=False, spelling="block", backwards=True)
    names = {"upsample_conv": "upsample.conv"}
    for half in ("encoder", "decoder"):
        names |= {f"{half}.mid.{i}": f"{half}.mid.block_{i + 1}" for i in range(2)}
    for old, new in names.items():
        shapes = {key.replace(old, new): shape for key, shape in shapes.items()}
    shapes["quantize.embedding.weight"] = (codes, z)
    return {f"base_tokenizer.vqgan.{key}": shape for key, shape in shapes.items()}


def _alit_shapes(shapes, pairs, norms, width, positions):
    norms.append("encoder_ln_recursive")
    pairs["decoder.decoder_embed"] = (width, 6)
    for half in ("encoder", "decoder"):
        shapes[f"{half}_positional_embedding"] = (positions + 1, width)
        shapes[f"{half}_class_embedding"] = (1, width)
        shapes[f"{half}_mask_token"] = (1, 1, width)
    shapes["latent_tokens"] = shapes["latent_token_positional_embedding"] = (4, width)
    shapes["timestep_embedding"] = (3, 4, width)
    shapes["decoder.latent_token_positional_embedding"] = (12, width)


def _karl_shapes(shapes, pairs, norms, width, positions):
    norms.append("encoder_ln_post_halt")
    pairs |= {"decoder_embed": (width, 6), "halting_mlp.0": (512, width)}
    pairs["halting_mlp.2"] = (1, 512)
    table = (width, *[2 * round(positions**0.5)] * 2)
    shapes["encoder_positional_embedding"] = shapes["decoder_positional_embedding"] = table
    shapes["decoder_mask_token"] = (1, 1, width)
    shapes["decoder_latent_tokens_timestep_embed"] = shapes["latent_tokens"] = (12, width)
    shapes["rec_loss_embeddings"] = (19, width)


def patches(state, x):
    side = state["patch_embed.weight"].shape[-1]
    rows = F.unfold(x, side, stride=side).mT
    return rows @ state["patch_embed.weight"].flatten(1).T + state["patch_embed.bias"]


def look_up(state, z):
    """Latents (B, n, D) to indices, the gap to the second nearest, and unit codes."""
    unit = F.normalize(state["quantize.embedding.weight"], dim=-1)
    product = F.normalize(z, dim=-1) @ unit.T
    best = product.sort(dim=-1, descending=True).values
    index = product.argmax(-1)
    return index, 2 * (best[..., 0] - best[..., 1]), unit[index]


def paint(state, h, side):
    """Rows (B, N, W) to logits and pictures in [0, 1], not clamped."""
    h = torch.tanh(affine(state, "decoder.ffn.0", norm(state, "decoder.ln_post", h)))
    logits = affine(state, "decoder.ffn.2", h)
    weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
    code = weights @ state["base_tokenizer.vqgan.quantize.embedding.weight"]
    return logits, maskgit_decode(mage(state), code.mT.unflatten(-1, (side, side)))


def run_alit(state, x, rollouts, heads):
    """Latents of every rollout, of pictures in [0, 1]."""
    base = maskgit_encode(mage(state), x)
    rows = torch.cat([base.flatten(2).mT, patches(state, x)], dim=-1)
    rows = rows / rows.norm(dim=-1, keepdim=True)
    first = state["encoder_class_embedding"].expand(len(x), 1, -1)
    h = torch.cat([first, rows], dim=1) + state["encoder_positional_embedding"]
    before, made = h.shape[1], []
    for i in range(rollouts):
        fresh = state["latent_tokens"] + state["latent_token_positional_embedding"]
        fresh = (fresh + state["timestep_embedding"][i]).expand(len(x), -1, -1)
        name = "encoder_ln_recursive" if i else "encoder_ln_pre"
        h = norm(state, name, torch.cat([h, fresh], dim=1))
        h = stack(state, "encoder.transformer.", h, heads)
        made.append(
            affine(state, "pre_quantizer_mlp", norm(state, "encoder_ln_post", h[:, before:]))
        )
    return made


def draw_alit(state, q, heads, side):
    """Codes (B, n, D) to logits and pictures in [0, 1]."""
    first = state["decoder_class_embedding"].expand(len(q), 1, -1)
    blank = state["decoder_mask_token"].expand(len(q), side * side, -1)
    rows = torch.cat([first, blank], dim=1) + state["decoder_positional_embedding"]
    tokens = affine(state, "decoder.decoder_embed", q)
    tokens = tokens + state["decoder.latent_token_positional_embedding"][: q.shape[1]]
    h = norm(state, "decoder.ln_pre", torch.cat([rows, tokens], dim=1))
    h = stack(state, "decoder.transformer.", h, heads)
    return paint(state, h[:, 1 : side * side + 1], side)


def on_grid(table, side):
    step = table.shape[-1] // side
    return table[:, ::step, ::step].flatten(1).T


def run_karl(state, x, count, wished, heads, side):
    """Latents (B, count, D) and the probability (B, count) that each is not needed."""
    base = maskgit_encode(mage(state), x).flatten(2).mT
    rows = torch.cat([patches(state, x), base], dim=-1)
    rows = rows + on_grid(state["encoder_positional_embedding"], side)
    known = [i for i, error in enumerate(ERRORS) if error >= wished - 1e-9]
    asked = state["rec_loss_embeddings"][known[0] if known else -1].expand(len(x), 1, -1)
    tokens = state["latent_tokens"][:count].expand(len(x), -1, -1)
    h = norm(state, "encoder_ln_pre", torch.cat([asked, rows, tokens], dim=1))
    h = stack(state, "encoder.transformer.", h, heads)[:, 1 + side * side :]
    halt = torch.tanh(affine(state, "halting_mlp.0", norm(state, "encoder_ln_post_halt", h)))
    halt = torch.sigmoid(affine(state, "halting_mlp.2", halt))[..., 0]
    return affine(state, "pre_quantizer_mlp", norm(state, "encoder_ln_post", h)), halt


def draw_karl(state, q, keep, heads, side):
    """Codes (B, n, D) of which ``keep (B, n)`` are there, to logits and pictures in [0, 1]."""
    rows = state["decoder_mask_token"] + on_grid(state["decoder_positional_embedding"], side)
    made = []
    for codes, there in zip(q, keep, strict=True):  # leaving rows out is the same as not looking
        tokens = affine(state, "decoder_embed", codes)
        tokens = tokens + state["decoder_latent_tokens_timestep_embed"][: len(codes)]
        h = norm(state, "decoder.ln_pre", torch.cat([rows, tokens[there][None]], dim=1))
        h = stack(state, "decoder.transformer.", h, heads)
        made.append(paint(state, h[:, : side * side], side))
    return torch.cat([logits for logits, _ in made]), torch.cat([pixels for _, pixels in made])
