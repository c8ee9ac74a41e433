"""Load checkpoints of which only keys and shapes are known: ``python scripts/manifests.py FOLDER``.

FOLDER holds ``NAME.json``, every upstream key with its shape, dtype and whether the file has it as
numbers to learn (``"float"``) or as constants; beside it ``NAME.config.json`` with the constructor
values under ``config``. NAME begins with the family, with or without its underscores. Zeros of
those shapes go through ``tokenizers_vq.from_published``, which wants every key and every shape; the
table of ``docs/published.md`` is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq import Tokenizer, from_published
from tokenizers_vq.backbones.base import TokenEncoder
from tokenizers_vq.published import families

SIDE = 256  # of a picture, for tokenizers of any size
HEAD = (
    "| checkpoint | family | upstream | here | tokens |",
    "|---|---|---:|---:|---|",
)


def family_of(name: str) -> str:
    """Return the family that a checkpoint's name begins with, the longest if several do.

    Raises:
        KeyError: there is none.
    """
    short = name.replace("_", "")
    found = [family for family in families() if short.startswith(family.replace("_", ""))]
    if not found:
        raise KeyError(name)
    return max(found, key=len)


def blank(shape: Sequence[int], dtype: str, kind: str) -> Tensor:
    """Return a tensor of a manifest: zeros, or for a vector of constants the worth of its bits."""
    if kind != "float" and len(shape) == 1:
        return (2 ** torch.arange(shape[0])).to(getattr(torch, dtype))
    return torch.zeros((), dtype=getattr(torch, dtype)).expand(tuple(shape))


def tokens(tok: Tokenizer) -> str:
    """Return how many tokens a picture has: of the one size that fits, or of ``SIDE`` pixels."""
    size = tok.encoder.size or (SIDE, SIDE)
    head = tok.quantizer
    count = f"{math.prod(head.index_grid(tok.encoder.grid(size))):,}"
    if isinstance(tok.encoder, TokenEncoder) and len(tok.encoder.counts) > 1:
        first, second, *_, last = tok.encoder.counts
        usual = tok.encoder.num_tokens
        count = f"{first}, {second}, .. {last}" + ("" if usual == last else f" ({usual})")
    each = f" x {head.num_codebooks}" if head.num_codebooks > 1 else ""
    return f"{count}{each} at {size[0]} px"


def line(path: Path) -> str:
    """Import the checkpoint whose keys are in ``path`` and return its row of the table."""
    name = path.stem.removesuffix("_full")
    manifest: Mapping[str, Any] = json.loads(path.read_text())
    values = json.loads(path.with_suffix(".config.json").read_text())["config"]
    state = {key: blank(*entry) for key, entry in manifest.items()}
    upstream = sum(math.prod(shape) for shape, _, kind in manifest.values() if kind == "float")
    tok = from_published(family_of(name), state, values)
    here = sum(p.numel() for p in tok.parameters())
    shown = "equal" if here == upstream else f"{here:,}"
    return f"| `{name}` | `{family_of(name)}` | {upstream:,} | {shown} | {tokens(tok)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Import every checkpoint; return the number of those that do not load."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the manifests are")
    parser.add_argument("--only", default="*", help="pattern of names, such as titok*")
    arguments = parser.parse_args(argv)
    print(*HEAD, sep="\n", flush=True)
    failed = 0
    for path in sorted(arguments.folder.glob(f"{arguments.only}.json")):
        if path.with_suffix(".config.json").exists():
            try:
                print(line(path), flush=True)
            except (RuntimeError, ValueError, KeyError) as failure:
                failed += 1
                print(f"{path.stem}: {failure}", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
