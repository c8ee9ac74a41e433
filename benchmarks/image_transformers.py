"""Encode and decode of image transformers: ours against a plain implementation, same weights.

    python benchmarks/image_transformers.py [--family NAME ...] [--seconds S]

As ``benchmarks/image_tokenizers.py``, for families around transformers: the plain side is the
functions of ``tests/reference`` with torch's own attention, norms and GELU in them, rows first as
in the published code. Times are CPU time of the thread. Rows go to the same file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import image_vqgans
import torch
import torch.nn.functional as F
from image_tokenizers import command, plain_torch, row_of
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from reference import convnets, distilled, published_vit
from reference import flextok as flow
from reference.published_vqgan import Net, Shape
from reference.published_vqgan import decode as draw
from reference.published_vqgan import encode as read

from tokenizers_vq import from_published

Side = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
State = dict[str, Tensor]
MODEL = {"model": {"vq_model": {"vit_enc_model_size": "tiny", "vit_dec_model_size": "tiny"}}}
LAYERS = 6


def plain_affine(state: State, name: str, x: Tensor) -> Tensor:
    """Linear map, also where it is kept as a 1x1 convolution."""
    return F.linear(x, state[f"{name}.weight"].flatten(1), state.get(f"{name}.bias"))


def plain_stack(
    state: State, prefix: str, x: Tensor, heads: int, seen: Tensor | None = None
) -> Tensor:
    """Pre-norm blocks with torch's multi-head attention, rows first."""
    h = x.transpose(0, 1)  # (N, B, W), as all of the published code has it
    count = len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})
    for name in (f"{prefix}{i}." for i in range(count)):
        n = published_vit.norm(state, f"{name}ln_1", h)
        h = h + F.multi_head_attention_forward(
            n, n, n, n.shape[-1], heads, state[f"{name}attn.in_proj_weight"],
            state[f"{name}attn.in_proj_bias"], None, None, False, 0.0,
            state[f"{name}attn.out_proj.weight"], state[f"{name}attn.out_proj.bias"],
            training=False, need_weights=False,
        )[0]  # fmt: skip
        n = published_vit.norm(state, f"{name}ln_2", h)
        n = F.gelu(plain_affine(state, f"{name}mlp.c_fc", n))
        h = h + plain_affine(state, f"{name}mlp.c_proj", n)
    return h.transpose(0, 1)


def nearest_unit(state: State, z: Tensor) -> Tensor:
    """Return the index of the code of nearest direction, ``(B, N, 1)``."""
    table = F.normalize(state["quantize.embedding.weight"], dim=-1)
    rows = F.normalize(z, dim=-1).flatten(0, 1)
    squares = rows.square().sum(1, keepdim=True) + table.square().sum(1)
    return (squares - 2 * rows @ table.T).argmin(1).view(*z.shape[:2], 1)


def unit_codes(state: State, indices: Tensor) -> Tensor:
    """Return the directions of codes."""
    return F.normalize(state["quantize.embedding.weight"], dim=-1)[indices[..., 0]]


def bsq_vit() -> tuple[Any, Side, int]:
    """18 bits, 128 x 128 pixels, half the published width and depth."""
    state = published_vit.make_bsq_vit(18, 384, LAYERS, 16, 8)
    embed, heads = state["encoder.conv1.weight"], 6

    def encode(x: Tensor) -> Tensor:
        squares = x.unflatten(3, (16, 8)).unflatten(2, (16, 8)).permute(0, 2, 4, 1, 3, 5)
        h = published_vit.trunk(state, "encoder", squares.flatten(3).flatten(1, 2) @ embed.T, heads)
        bits = (plain_affine(state, "quant_embed", h) > 0).long()
        return (bits * 2 ** torch.arange(17, -1, -1)).sum(-1).view(-1, 16, 16, 1)

    def decode(indices: Tensor) -> Tensor:
        bits = (indices.flatten(1)[..., None] >> torch.arange(17, -1, -1)) & 1
        z_q = (2.0 * bits - 1) / 18**0.5
        h = published_vit.trunk(
            state, "decoder", plain_affine(state, "post_quant_embed", z_q), heads
        )
        rows = plain_affine(state, "decoder.ffn.0", h).tanh()
        rows = plain_affine(state, "decoder.conv_out", rows)
        cells = rows.view(rows.shape[0], 16, 16, 3, 8, 8).permute(0, 3, 1, 4, 2, 5)
        return cells.reshape(rows.shape[0], 3, 128, 128)

    values = {"vitconfig": {"heads": heads}}
    return from_published("bsq_vit", state, values), (encode, decode), 128


def titok(family: str = "titok", tokens: int = 64) -> tuple[Any, Side, int]:
    """Two stages, 256 x 256 pixels, half the width of S, a pixel decoder of a quarter."""
    state = published_vit.make_titok(256, 12, tokens, 16, 16, 4096, layers=LAYERS, proxies=1024)
    shapes = convnets.maskgit_shapes(
        32, (1, 1, 2, 2, 4), 2, 256, strided=False, spelling="block", backwards=True
    )
    pixels = {k: v for k, v in convnets.fill(shapes).items() if k.startswith("decoder.")}
    table = torch.randn(1024, 256)
    state |= {f"pixel_{key}": value for key, value in pixels.items()}
    state["pixel_quantize.embedding.weight"] = table

    def encode(x: Tensor) -> Tensor:
        return nearest_unit(state, published_vit.titok_latents(state, (x + 1) / 2, 4, True))

    def decode(indices: Tensor) -> Tensor:
        scores = published_vit.titok_decode(state, unit_codes(state, indices), 4, True)
        codes = torch.einsum("nchw,cd->ndhw", scores.softmax(1), table)
        return 2 * convnets.maskgit_decode(pixels, codes) - 1

    return from_published(family, state, MODEL), (encode, decode), 256


def one_d_piece() -> tuple[Any, Side, int]:
    """As ``titok`` with 256 tokens, any first of which decode."""
    return titok("one_d_piece", 256)


def alit() -> tuple[Any, Side, int]:
    """Three rollouts, 128 x 128 pixels, a third of the published width, a base of a quarter."""
    state = distilled.make("alit", 320, 16, 256, LAYERS)

    def encode(x: Tensor) -> Tensor:
        return nearest_unit(state, distilled.run_alit(state, (x + 1) / 2, 3, 5)[-1])

    def decode(indices: Tensor) -> Tensor:
        return 2 * distilled.draw_alit(state, unit_codes(state, indices), 5, 16)[1] - 1

    return from_published("alit", state, {"heads": 5}), (encode, decode), 128


def karl() -> tuple[Any, Side, int]:
    """As ``alit``, in one pass."""
    state = distilled.make("karl", 320, 16, 256, LAYERS)
    state["halting_mlp.2.weight"] *= 0
    state["halting_mlp.2.bias"] = torch.full((1,), -4.0)  # every token stays

    def encode(x: Tensor) -> Tensor:
        z, halted = distilled.run_karl(state, (x + 1) / 2, 12, 0.05, 5, 16)
        return nearest_unit(state, z).masked_fill((halted > 0.75)[..., None], -1)

    def decode(indices: Tensor) -> Tensor:
        there = indices[..., 0] >= 0
        return 2 * distilled.draw_karl(state, unit_codes(state, indices), there, 5, 16)[1] - 1

    return from_published("karl", state, {"heads": 5}), (encode, decode), 128


def flextok() -> tuple[Any, Side, int]:
    """Half the width and depth of d12, 64 registers, 4 steps, a base of half the width."""
    latent, levels, depth, steps = 16, (1, 2, 4, 4), 6, 4
    base, x = Net(), torch.zeros(1, 3, 32, 32)
    down, up = (Shape(64, levels, 2, z, z) for z in (2 * latent, latent))
    draw(base, read(base, x, down)[:, :latent], up)
    base.fixed = True
    state = flow.make(384, depth, 64, 8, latent)
    ours = from_published("flextok", state | diffusers(base.state, len(levels)))
    ours.decoder.steps = steps
    widths = torch.tensor((8, 8, 8, 5, 5, 5))
    half = (widths - 1) * 1.001 / 2
    offset = torch.where(widths % 2 == 0, 0.5, 0.0)
    shift, places = (offset / half).atanh(), widths.cumprod(0) // widths

    def encode(x: Tensor) -> Tensor:
        z = flow.encode(state, read(base, x, down)[:, :latent], depth)
        digits = ((z + shift).tanh() * half - offset).round() + widths // 2
        return (digits * places).sum(-1, keepdim=True).long()

    def decode(indices: Tensor) -> Tensor:
        q = (indices // places % widths - widths // 2) / (widths // 2)
        return draw(base, flow.decode(state, q, ours.decoder.noise, steps, 7.5, depth), up)

    return ours, (encode, decode), 128


def diffusers(state: State, levels: int) -> State:
    """Return the tensors of an autoencoder under the names that FlexTok's files have for them."""
    names = {
        r"encoder\.down\.(\d)\.": r"encoder.down_blocks.\1.",
        r"decoder\.up\.(\d)\.": lambda m: f"decoder.up_blocks.{levels - 1 - int(m[1])}.",
        r"\.block\.": ".resnets.",
        r"\.(down|up)sample\.": r".\1samplers.0.",
        r"\.mid\.block_1": ".mid_block.resnets.0",
        r"\.mid\.block_2": ".mid_block.resnets.1",
        r"\.mid\.attn_1\.norm": ".mid_block.attentions.0.group_norm",
        r"\.mid\.attn_1\.([qkv])": r".mid_block.attentions.0.to_\1",
        r"\.mid\.attn_1\.proj_out": ".mid_block.attentions.0.to_out.0",
        r"\.norm_out": ".conv_norm_out",
        r"nin_shortcut": "conv_shortcut",
    }
    found = {}
    for key, value in state.items():
        name = f"vae.vae.{key}"
        for ours, theirs in names.items():
            name = re.sub(ours, theirs, name)
        found[name] = value.flatten(1) if ".attn_1." in key and value.ndim == 4 else value
    return found


def plain_flow() -> None:
    """Put torch's own operations into the spelt-out functions of ``tests/reference/flextok``."""

    def attend(state: State, name: str, x: Tensor, seen: Tensor | None) -> Tensor:
        parts = (plain_affine(state, f"{name}.{part}", x) for part in ("wq", "wk", "wv"))
        q, k, v = (part.unflatten(-1, (-1, 64)).transpose(1, 2) for part in parts)
        h = F.scaled_dot_product_attention(flow.unit(q), flow.unit(k), v, seen, scale=8 / 64)
        return plain_affine(state, f"{name}.proj", h.transpose(1, 2).flatten(2))

    def mlp(state: State, name: str, x: Tensor) -> Tensor:
        gate = F.silu(plain_affine(state, f"{name}.fc1", x))
        return plain_affine(state, f"{name}.fc2", gate * plain_affine(state, f"{name}.fc3", x))

    def patches(x: Tensor) -> Tensor:
        cells = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 2, 4, 3, 5, 1)
        return cells.flatten(3).flatten(1, 2)

    def pictures(rows: Tensor, side: int) -> Tensor:
        cells = rows.unflatten(-1, (2, 2, -1)).unflatten(1, (side, side))
        return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    flow.attend, flow.mlp, flow.patches, flow.pictures = attend, mlp, patches, pictures
    flow.unit = lambda x: F.layer_norm(x, x.shape[-1:], eps=1e-5)
    flow.sight = cache(flow.sight)


FAMILIES = {one.__name__: one for one in (bsq_vit, titok, one_d_piece, alit, karl, flextok)}


def rows(family: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield times, ratios and peaks of one family."""
    ours, (encode, decode), size = FAMILIES[family]()
    yield row_of(family, ours, encode, decode, size, seconds)


if __name__ == "__main__":
    plain_torch()
    plain_flow()
    image_vqgans.plain_torch()
    for module in (published_vit, distilled):
        module.affine = plain_affine
        module.stack = plain_stack
    command(__doc__, FAMILIES, rows)
