"""Encode and decode of VQGAN's descendants: ours against a plain implementation, same weights.

    python benchmarks/image_vqgans.py [--family NAME ...] [--seconds S]

As ``benchmarks/image_tokenizers.py``, for the families around VQGAN's network, at the published
levels, blocks, latent widths and codebooks with 64 channels where the published ones have 128 or
160, on 128 x 128 pixels; Cosmos, whose network sees cells of 4 x 4, also on 256 x 256. The plain
side is the functions of ``tests/reference/published_vqgan.py`` with torch's own norms, swish,
resampling and attention of many heads in them, and codes searched by one matrix product. Rows go to
the same file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from image_tokenizers import SIZE, command, row_of
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from reference import published_vqgan as vqgan
from reference.published_vqgan import Net, Shape

from tokenizers_vq import from_published

Side = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
SIZES = {"cosmos_di": (128, 256)}
LEVELS = (1, 1, 2, 2, 4)
SCALES = [1, 2, 3, 4, 5, 6, 8]  # VAR's at half its pictures
SCALARS = [8, 8, 8, 5, 5, 5]
KINDS = [("visual_head", "vis"), ("semantic_head", "sem")]
ADAPTER = {"layers": 6, "heads": 8}


def shape_of(z: int, d: int, **options: Any) -> Shape:
    """Return the sizes of a network at stride 16 with attention at its coarsest level."""
    ends = {"attended": (4,), "attended_up": (4,)}
    return Shape(**{"ch": 64, "mult": LEVELS, "blocks": 2, "z": z, "d": d, **ends, **options})


def plain_torch() -> None:
    """Put torch's own operations into the spelt-out functions of the reference."""

    def affine_of(net: Net, key: str, width: int) -> tuple[Tensor, Tensor]:
        return net.get(f"{key}.weight", width, shift=1.0), net.get(f"{key}.bias", width)

    def groups(net: Net, key: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 32, *affine_of(net, key, x.shape[1]), 1e-6)

    def rows(net: Net, key: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *affine_of(net, key, x.shape[-1]), 1e-5)

    vqgan.Net.groups, vqgan.Net.rows = groups, rows
    vqgan.swish = F.silu
    vqgan.doubled = lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest")
    vqgan.nearest = nearest


def nearest(rows: Tensor, codes: Tensor) -> Tensor:
    """Return the nearest codes by squares and one product, as the published code does."""
    squares = rows.square().sum(1, keepdim=True) + codes.square().sum(1)
    return torch.addmm(squares, rows, codes.T, alpha=-2).argmin(1)


def plain_adapter(net: Net, name: str, h: Tensor, layers: int, heads: int) -> Tensor:
    """FQGAN's head with torch's multi-head attention, rows first."""
    key = f"encoder.{name}.0"
    x = h.flatten(2).permute(2, 0, 1) + net.state[f"{key}.positional_embedding"][:, None]
    x = net.rows(f"{key}.ln_pre", x)
    for block in (f"{key}.transformer.{i}" for i in range(layers)):
        n = net.rows(f"{block}.ln_1", x)
        names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        w_in, b_in, w_out, b_out = (net.state[f"{block}.attn.{part}"] for part in names)
        x = x + F.multi_head_attention_forward(
            n, n, n, n.shape[-1], heads, w_in, b_in, None, None, False, 0.0, w_out, b_out,
            training=False, need_weights=False,
        )[0]  # fmt: skip
        n = F.gelu(affine(net, f"{block}.mlp.c_fc", net.rows(f"{block}.ln_2", x)))
        x = x + affine(net, f"{block}.mlp.c_proj", n)
    return net.rows(f"{key}.ln_post", x).permute(1, 2, 0).reshape(h.shape)


def affine(net: Net, key: str, x: Tensor) -> Tensor:
    """Linear map."""
    return F.linear(x, net.state[f"{key}.weight"], net.state[f"{key}.bias"])


def look_up(codes: Tensor, indices: Tensor) -> Tensor:
    """Return codes ``(B, d, h, w)`` of indices ``(B, h, w)``."""
    return F.embedding(indices, codes).permute(0, 3, 1, 2).contiguous()


def table_of(
    family: str, shape: Shape, size: int, search: Callable[..., Tensor], unit: bool = False
) -> tuple[Any, Side]:
    """Return a tokenizer around one table of codes, and its plain side."""
    net = Net()
    vqgan.run_vq(net, picture(), shape, size, search, l2=unit)
    net.fixed = True
    table = net.state["quantize.embedding.weight"]

    def encode(x: Tensor) -> Tensor:
        z = vqgan.encode(net, x, shape)
        rows = z.permute(0, 2, 3, 1).reshape(-1, shape.d)
        if unit:
            rows = F.normalize(rows, dim=-1)
        found = search(rows, F.normalize(table, dim=-1) if unit else table)
        return found.view(z.shape[0], *z.shape[2:], 1)

    def decode(indices: Tensor) -> Tensor:
        codes = F.normalize(table, dim=-1) if unit else table
        return vqgan.decode(net, look_up(codes, indices[..., 0]), shape)

    return from_published(family, net.state), (encode, decode)


def taming() -> tuple[Any, Side]:
    """Stride 16, 16,384 codes of 256 channels."""
    return table_of("taming", shape_of(256, 256), 16384, nearest)


def llamagen() -> tuple[Any, Side]:
    """VQ-16: 16,384 directions in 8 channels."""
    return table_of("llamagen", shape_of(256, 8, names="llamagen"), 16384, nearest, unit=True)


def ibq() -> tuple[Any, Side]:
    """Four blocks per level, 16,384 codes of 256 channels chosen by products."""
    return table_of("ibq", shape_of(256, 256, blocks=4), 16384, vqgan.by_product)


def var() -> tuple[Any, Side]:
    """Tokens of seven grids from 1 x 1 to 8 x 8, 4,096 codes of 32 channels."""
    net, shape = Net(), shape_of(32, 32, names="var", kernel=3)
    vqgan.run_var(net, picture(), shape, SCALES, 4096)
    net.fixed = True
    table = net.state["quantize.embedding.weight"]

    def encode(x: Tensor) -> Tensor:
        z = vqgan.encode(net, x, shape)
        return vqgan.scales(net, z, SCALES, 4096, vqgan.TICKS)[0][..., None]

    def decode(indices: Tensor) -> Tensor:
        total, columns = 0.0, indices[..., 0].split([side**2 for side in SCALES], 1)
        for s, (side, column) in enumerate(zip(SCALES, columns, strict=True)):
            h = look_up(table, column.unflatten(1, (side, side)))
            total = total + vqgan.raised(net, h, s, SCALES, vqgan.TICKS)
        return vqgan.decode(net, total, shape)

    return from_published("var", net.state, {"v_patch_nums": SCALES}), (encode, decode)


def cosmos_di() -> tuple[Any, Side]:
    """DI8x8: Haar cells of 4 pixels, one halving, six channels rounded."""
    net = Net()
    shape = Shape(64, (2, 4, 4), 2, 256, 6, downs=1, channels=48)
    vqgan.run_cosmos(net, picture(), shape, SCALARS, 2)
    net.fixed = True
    levels = torch.tensor(SCALARS)
    half, even = (levels - 1) * 1.001 / 2, levels % 2 == 0
    offset = torch.where(even, 0.5, 0.0)
    shift, places = (offset / half).atanh(), levels.cumprod(0) // levels

    def encode(x: Tensor) -> Tensor:
        z = vqgan.encode(net, vqgan.haar(vqgan.haar(x)), shape).movedim(1, -1)
        digits = ((z + shift).tanh() * half - offset).round() + levels // 2
        return (digits * places).sum(-1, keepdim=True).long()

    def decode(indices: Tensor) -> Tensor:
        codes = (indices // places % levels - levels // 2) / (levels // 2)
        y = vqgan.decode(net, codes.movedim(-1, 1).contiguous(), shape)
        return vqgan.unhaar(vqgan.unhaar(y))

    return from_published("cosmos_di", net.state), (encode, decode)


def fqgan() -> tuple[Any, Side]:
    """Dual at stride 16: two adapters of six blocks, twice 16,384 directions in 8 channels."""
    net, shape = Net(), shape_of(256, 8, names="llamagen")
    vqgan.run_fqgan(net, picture(), shape, 16384, KINDS, **ADAPTER)
    net.fixed = True
    tables = [net.state[f"quantize_{short}.embedding.weight"] for _, short in KINDS]

    def encode(x: Tensor) -> Tensor:
        h, found = vqgan.trunk(net, x, shape), []
        for (name, short), table in zip(KINDS, tables, strict=True):
            z = vqgan.adapted(net, short, plain_adapter(net, name, h, **ADAPTER), shape)
            rows = F.normalize(z.permute(0, 2, 3, 1).reshape(-1, shape.d), dim=-1)
            found.append(nearest(rows, F.normalize(table, dim=-1)).view(-1, *z.shape[2:]))
        return torch.stack(found, -1)

    def decode(indices: Tensor) -> Tensor:
        parts = zip(tables, indices.unbind(-1), strict=True)
        codes = [look_up(F.normalize(table, dim=-1), column) for table, column in parts]
        return vqgan.decode(net, torch.cat(codes, 1), shape)

    values = {"adapter": {"heads": ADAPTER["heads"]}}
    return from_published("fqgan", net.state, values), (encode, decode)


def picture() -> Tensor:
    """Return the picture with which a network invents its weights."""
    return torch.rand(1, 3, SIZE, SIZE) * 2 - 1


FAMILIES = {one.__name__: one for one in (taming, llamagen, ibq, var, cosmos_di, fqgan)}


@torch.no_grad()
def rows(family: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield times, ratios and peaks of one family, a row per size."""
    ours, (encode, decode) = FAMILIES[family]()
    for size in SIZES.get(family, (SIZE,)):
        yield row_of(family, ours, encode, decode, size, seconds)


if __name__ == "__main__":
    plain_torch()
    command(__doc__, FAMILIES, rows)
