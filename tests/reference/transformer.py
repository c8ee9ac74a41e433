"""Vision transformers as plain functions of state dicts, written from the papers' formulas.

``block`` and ``stack`` take our names; ``upstream`` turns those that CLIP's descendants publish
into ours with string replacements alone, so that importers can be judged without their rules.
"""

import math

import torch
import torch.nn.functional as F

EPS = 1e-5
NAMES = {
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj": "attn.proj",
    "ln_1": "norm1",
    "ln_2": "norm2",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}


def prefixed(state, prefix):
    """The tensors under a prefix, without it."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], EPS)


def affine(state, name, x):
    y = x @ state[f"{name}.weight"].flatten(1).T
    return y + state[f"{name}.bias"] if f"{name}.bias" in state else y


def attention(state, x, heads, seen=None):
    """``seen (B, N)`` bool: rows that may be looked at."""
    width = x.shape[-1]
    q, k, v = affine(state, "qkv", x).split(width, dim=-1)
    out = []
    for part in range(heads):
        rows = slice(part * width // heads, (part + 1) * width // heads)
        score = q[..., rows] @ k[..., rows].transpose(1, 2) / math.sqrt(width // heads)
        if seen is not None:
            score = score.masked_fill(~seen[:, None, :], -math.inf)
        out.append(score.softmax(-1) @ v[..., rows])
    return affine(state, "proj", torch.cat(out, -1))


def block(state, x, heads, seen=None):
    x = x + attention(prefixed(state, "attn."), norm(state, "norm1", x), heads, seen)
    h = affine(state, "mlp.up", norm(state, "norm2", x))
    h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
    return x + affine(state, "mlp.down", h)


def stack(state, prefix, x, heads, seen=None):
    """All blocks under ``<prefix><i>.``, in order of i; keys as they are published."""
    state = {k: v for k, v in state.items() if k.startswith(prefix)}
    for old, new in NAMES.items():
        state = {k.replace(old, new): v for k, v in state.items()}
    layers = 1 + max(int(k[len(prefix) :].split(".")[0]) for k in state)
    for i in range(layers):
        x = block(prefixed(state, f"{prefix}{i}."), x, heads, seen)
    return x
