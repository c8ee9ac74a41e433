"""FlexTok as plain functions of an upstream state dict, written from the paper's formulas."""

import math

import torch
import torch.nn.functional as F
from reference.convnets import fill

ENC, DEC = "encoder.module_dict.", "decoder.module_dict."


def make(width=64, depth=2, registers=6, side=4, channels=4):
    """A small state dict with the published keys, for latents of ``2 * side`` squared."""
    shapes = {
        f"{ENC}enc_patch_emb.patch_proj": (width, 4 * channels),
        f"{ENC}enc_to_latents.proj": (6, width),
        f"{DEC}dec_from_latents.proj": (width, 6),
        f"{DEC}dec_noise_patch_emb.patch_proj": (width, 4 * channels),
        f"{DEC}dec_time_embedder.mlp.0": (width, 256),
        f"{DEC}dec_time_embedder.mlp.2": (width, width),
        f"{DEC}dec_to_patches.adaLN_modulation.1": (2 * width, width),
        f"{DEC}dec_to_patches.proj": (4 * channels, width),
    }
    hidden, weights = int(2 * 4 * width / 3), {}
    for i in range(depth):
        for trunk in (f"{ENC}enc_transformer", f"{DEC}dec_transformer"):
            for part in ("wq", "wk", "wv", "proj"):
                weights[f"{trunk}.blocks.{i}.attn.{part}"] = (width, width)
            for part in ("fc1", "fc3"):
                weights[f"{trunk}.blocks.{i}.mlp.{part}"] = (hidden, width)
            weights[f"{trunk}.blocks.{i}.mlp.fc2"] = (width, hidden)
        shapes[f"{DEC}dec_transformer.blocks.{i}.adaLN_modulation.1"] = (12 * width, width)
    full = {f"{name}.weight": shape for name, shape in (shapes | weights).items()}
    full |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    full[f"{ENC}enc_register_module.registers"] = (registers, width)
    full[f"{DEC}dec_registers_posemb_module.posembs"] = (1, 1, width, registers)
    full[f"{DEC}dec_nested_dropout.dropout_mask_token"] = (width,)
    full[f"{DEC}dec_latent_dropout.nullcond"] = (width,)
    state = fill(full)
    state[f"{ENC}enc_to_latents.proj.weight"] *= 2
    places = waves(side, width)
    state[f"{ENC}enc_posemb_module.posembs"] = places
    state[f"{DEC}dec_patches_posemb_module.posembs"] = places
    return state


def waves(side, width):
    """Sine-cosine positions (1, width, side, side): half for the row, half for the column."""
    place = torch.zeros(1, width, side, side)
    quarter = width // 4
    for row in range(side):
        for column in range(side):
            for i in range(quarter):
                speed = 10000 ** (-i / quarter)
                values = (row * speed, column * speed)
                for half, angle in enumerate(values):
                    place[0, 2 * half * quarter + i, row, column] = math.sin(angle)
                    place[0, (2 * half + 1) * quarter + i, row, column] = math.cos(angle)
    return place


def affine(state, name, x):
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def unit(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def attend(state, name, x, seen):
    made = []
    q, k, v = (affine(state, f"{name}.{part}", x) for part in ("wq", "wk", "wv"))
    for start in range(0, x.shape[-1], 64):
        rows = slice(start, start + 64)
        score = unit(q[..., rows]) @ unit(k[..., rows]).mT * (8 / 64)
        if seen is not None:
            score = score.masked_fill(~seen, -math.inf)
        made.append(score.softmax(-1) @ v[..., rows])
    return affine(state, f"{name}.proj", torch.cat(made, -1))


def mlp(state, name, x):
    gate = affine(state, f"{name}.fc1", x)
    return affine(state, f"{name}.fc2", gate * gate.sigmoid() * affine(state, f"{name}.fc3", x))


def patches(x):
    """Latents (B, C, H, W) to rows of 2 x 2 cells: row, column, channel."""
    cells = [x[:, :, i::2, j::2].movedim(1, -1) for i in (0, 1) for j in (0, 1)]
    return torch.cat(cells, -1).flatten(1, 2)


def pictures(rows, side):
    cells = rows.unflatten(1, (side, side)).unflatten(-1, (4, -1)).movedim(-1, 1)
    x = torch.zeros(*cells.shape[:2], 2 * side, 2 * side)
    for i in (0, 1):
        for j in (0, 1):
            x[:, :, i::2, j::2] = cells[..., 2 * i + j]
    return x


def sight(before, total):
    """Which rows see which: patches each other, registers them and those before."""
    return torch.tensor(
        [[j < before or (i >= before and j <= i) for j in range(total)] for i in range(total)]
    )


def encode(state, x, depth=2):
    """Latents (B, C, H, W) to what is rounded, (B, registers, 6)."""
    rows = affine(state, f"{ENC}enc_patch_emb.patch_proj", patches(x))
    rows = rows + state[f"{ENC}enc_posemb_module.posembs"].flatten(2).mT
    registers = state[f"{ENC}enc_register_module.registers"]
    before = rows.shape[1]
    seen = sight(before, before + len(registers))
    h = torch.cat([rows, registers.expand(len(x), -1, -1)], dim=1)
    for i in range(depth):
        name = f"{ENC}enc_transformer.blocks.{i}"
        h = h + attend(state, f"{name}.attn", unit(h), seen)
        h = h + mlp(state, f"{name}.mlp", unit(h))
    return affine(state, f"{ENC}enc_to_latents.proj", unit(h[:, before:]))


def velocity(state, x, time, tokens, depth=2):
    """The flow at noised latents (B, C, H, W), one time, and rows of tokens."""
    rows = affine(state, f"{DEC}dec_noise_patch_emb.patch_proj", patches(x))
    rows = rows + state[f"{DEC}dec_patches_posemb_module.posembs"].flatten(2).mT
    angles = [1000 * time * 256 ** (-i / 128) for i in range(128)]
    embedded = torch.tensor([[math.cos(a) for a in angles] + [math.sin(a) for a in angles]])
    embedded = affine(state, f"{DEC}dec_time_embedder.mlp.0", embedded)
    embedded = affine(state, f"{DEC}dec_time_embedder.mlp.2", embedded * embedded.sigmoid())
    embedded = embedded * embedded.sigmoid()
    before = rows.shape[1]
    h = torch.cat([rows, tokens], dim=1)
    for i in range(depth):
        name = f"{DEC}dec_transformer.blocks.{i}"
        made = affine(state, f"{name}.adaLN_modulation.1", embedded)[0].chunk(12)
        parts = [
            torch.cat([a.expand(before, -1), b.expand(tokens.shape[1], -1)])
            for a, b in zip(made[:6], made[6:], strict=True)
        ]
        gate1, gate2, shift1, scale1, shift2, scale2 = parts
        h = h + gate1 * attend(state, f"{name}.attn", unit(h) * (1 + scale1) + shift1, None)
        h = h + gate2 * mlp(state, f"{name}.mlp", unit(h) * (1 + scale2) + shift2)
    shift, scale = affine(state, f"{DEC}dec_to_patches.adaLN_modulation.1", embedded)[0].chunk(2)
    h = unit(h[:, :before]) * (1 + scale) + shift
    return pictures(affine(state, f"{DEC}dec_to_patches.proj", h), math.isqrt(before))


def decode(state, q, noise, steps, strength, depth=2):
    """Codes (B, n, 6) and noise to latents, with adaptive projected guidance."""
    total = state[f"{ENC}enc_register_module.registers"].shape[0]
    tokens = affine(state, f"{DEC}dec_from_latents.proj", q)
    tokens = tokens + state[f"{DEC}dec_registers_posemb_module.posembs"][0, 0].T[: q.shape[1]]
    blank = state[f"{DEC}dec_nested_dropout.dropout_mask_token"]
    tokens = torch.cat([tokens, blank.expand(len(q), total - q.shape[1], -1)], dim=1)
    nothing = state[f"{DEC}dec_latent_dropout.nullcond"].expand_as(tokens)
    x, running = noise, 0
    for step in range(steps, 0, -1):
        c = velocity(state, x, step / steps, tokens, depth)
        u = velocity(state, x, step / steps, nothing, depth)
        running = (c - u) - 0.5 * running
        guided = []
        for one, d in zip(c, running, strict=True):
            short = d * min(1.0, 2.5 / float(d.norm()))
            along = one / one.norm()
            guided.append(one + (strength - 1) * (short - (short * along).sum() * along))
        x = x - torch.stack(guided) / steps
    return x
