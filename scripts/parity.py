"""Compare imported weights with outputs of the published code: ``python scripts/parity.py FOLDER``.

FOLDER holds one folder per case, or is one: ``case.json`` (repository, class, constructor values,
range of the pictures), ``manifest.json`` (every upstream key with shape and dtype),
``io.safetensors`` (the input and what the published code made of it), and where they are needed
``weights.safetensors`` or ``constants.safetensors``. Without stored weights they are a function of
their key and shape. Each case goes through ``tokenizers_vq.from_published``; a table is printed.

Errors are the largest absolute difference over the largest absolute reference value. Indices are
compared where the stored margin is above 1e-4, or everywhere if there is none; where the published
encoder halts, which its stored logits say, ours has to leave the token out, and nowhere else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

import tokenizers_vq

# Repository, what the class or the quantizer is called, family; the first match counts.
FAMILIES = (
    ("taming-transformers", "", "taming"),
    ("LlamaGen", "", "llamagen"),
    ("SEED-Voken", "IBQ", "ibq"),
    ("SEED-Voken", "", "open_magvit2"),
    ("WeTok", "", "wetok"),
    ("SimVQ", "", "simvq"),
    ("maskbit", "lookup-free", "maskbit"),
    ("maskbit", "", "vqgan_plus"),
    ("1d-tokenizer", "MaskGIT", "maskgit_vqgan"),
    ("1d-tokenizer", "TATiTok", "ta_titok"),
    ("1d-tokenizer", "", "titok"),
    ("One-D-Piece", "", "one_d_piece"),
    ("bsq-vit", "BSQ", "bsq_vit"),
    ("bsq-vit", "", "vit_vq"),
    ("FQGAN", "", "fqgan"),
    ("ml-flextok", "", "flextok"),
    ("adaptive-length-tokenizer", "", "alit"),
    ("karl", "", "karl"),
    ("VAR", "", "var"),
    ("Cosmos-Tokenizer", "", "cosmos_di"),
)
BOUND = 1e-4  # of relative errors and of margins
HALTED = 0.75  # probability above which the published encoder does without a token
OTHER_ORDER = ("vis", "sem", "sem_mid", "sem_high")  # of parts that are stored one by one


@dataclass
class Row:
    """What one case came to.

    Attributes:
        case: its name.
        family: what it was imported as.
        equal: indices that agree, of those outside the margin.
        counted: indices outside the margin.
        errors: relative errors by what was compared.
        note: why nothing was compared.
        skipped: whether that is no failure.
    """

    case: str
    family: str
    equal: int = 0
    counted: int = 0
    errors: dict[str, float] = field(default_factory=dict)
    note: str = ""
    skipped: bool = False

    @property
    def passed(self) -> bool:
        """Whether all indices agree and every error is within the bound."""
        within = all(error <= BOUND for error in self.errors.values())
        return not self.note and self.equal == self.counted and within


def family_of(meta: Mapping[str, Any]) -> str:
    """Return the family of a case.

    Raises:
        KeyError: no family has that repository.
    """
    words = f"{meta.get('cls', '')} {json.dumps(meta.get('config', {}))}"
    for repository, word, family in FAMILIES:
        if meta["repo"].endswith(repository) and word in words:
            return family
    raise KeyError(meta["repo"])


def generated(key: str, shape: Sequence[int], salt: str, overrides: Sequence[Any]) -> Tensor:
    """Return the tensor of a key: uniform numbers from the Mersenne Twister seeded by its name."""
    seed = int.from_bytes(hashlib.sha256(f"{salt}|{key}".encode()).digest()[:4], "little")
    uniform = np.random.RandomState(seed).random_sample(math.prod(shape))
    fan_in = math.prod(shape[1:]) ** -0.5
    gain, shift = (fan_in, 0.0) if len(shape) >= 2 else (0.05, 0.0)
    if len(shape) < 2 and key.endswith("weight"):
        gain, shift = 0.1, 1.0
    for part, wanted, offset in overrides:
        if part in key:
            gain, shift = fan_in if wanted == "fan_in" else wanted, offset
            break
    unit = torch.from_numpy(((2 * uniform - 1) * 3**0.5).astype(np.float32)).reshape(tuple(shape))
    return unit * np.float32(gain) + np.float32(shift)


def read_weights(folder: Path, meta: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the upstream state dict of a case."""
    if (folder / "weights.safetensors").exists():
        return load_file(folder / "weights.safetensors")
    stored = folder / "constants.safetensors"
    state = load_file(stored) if stored.exists() else {}
    manifest = json.loads((folder / "manifest.json").read_text())
    for key, (shape, dtype, kind) in manifest.items():
        if kind == "float":
            made = generated(key, shape, meta["salt"], meta["overrides"])
            state[key] = made.to(getattr(torch, dtype))
    return {key: state[key] for key in manifest if key in state}


def rows(x: Tensor) -> Tensor:
    """Return latents ``(B, D, h, w)`` or ``(B, N, D)`` as ``(B, N, D)``."""
    return x.flatten(2).mT if x.ndim > 3 else x


def error(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest absolute difference over the largest absolute reference value."""
    if ours.shape != theirs.shape:
        return math.inf
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))


def gather(io: Mapping[str, Tensor], name: str, suffix: str, dim: int) -> Tensor | None:
    """Return a stored tensor, or its parts side by side where they are stored one by one."""
    if f"{name}{suffix}" in io:
        return io[f"{name}{suffix}"]
    parts = [io[f"{name}_{part}"] for part in OTHER_ORDER if f"{name}_{part}" in io]
    return torch.cat(parts, dim) if parts else None


def runs(io: Mapping[str, Tensor]) -> list[str]:
    """Return the suffixes of the outputs: one, or one for each number of tokens."""
    found = {match[0] for key in io if (match := re.search(r"(?<=^indices)_\d+$", key))}
    return sorted(found, key=lambda suffix: int(suffix[1:])) or [""]


@torch.no_grad()
def compare(tok: tokenizers_vq.Tokenizer, io: Mapping[str, Tensor], row: Row, unit: bool) -> None:
    """Fill ``row`` with what ``tok`` makes of the stored input; ``unit`` for pictures in [0, 1]."""
    x = io["input"] * 2 - 1 if unit else io["input"]
    for suffix in runs(io):
        single = {k: v[..., None] if k.startswith("indices_") else v for k, v in io.items()}
        stacked = gather(io if suffix else single, "indices", suffix, -1)
        if stacked is None:
            row.note = "no indices stored"
            return
        count = {"num_tokens": stacked.shape[-1]} if suffix else {}
        codes = tok.encode(x, **count)
        theirs = stacked.reshape(x.shape[0], -1, codes.indices.shape[-1])
        _indices(codes.indices.flatten(1, -2), theirs, io, suffix, row)
        _note(
            row, "latents", rows(_first(tok.encoder(x, **count))), io, ("pre_quant", "pre"), suffix
        )
        z_q = tok.quantizer.decode(
            codes.indices, tok.encoder.grid(x.shape[2:]) if not count else None
        )
        _note(row, "quantized", _first(z_q), io, ("quantized", "fhat", "quant"), suffix)
        _pictures(tok, codes, io, suffix, row, unit)


def _first(z: Tensor) -> Tensor:
    return z.flatten(1, -2)


def _indices(ours: Tensor, theirs: Tensor, io: Mapping[str, Tensor], suffix: str, row: Row) -> None:
    margins = [v for k, v in io.items() if "margin" in k and (not suffix or k.endswith(suffix))]
    names = [k for k in io if "margin" in k]
    sure = torch.ones_like(theirs, dtype=torch.bool)
    if len(margins) == 1:
        sure &= (margins[0] > BOUND).reshape(*theirs.shape[:2], -1)
    elif len(margins) == theirs.shape[-1]:
        order = [f"margin_{part}" for part in OTHER_ORDER if f"margin_{part}" in names]
        sure = torch.stack([io[key].flatten(1) > BOUND for key in order], -1)
    if (halting := io.get(f"halt_logits{suffix}")) is not None:
        theirs = torch.where(halting.reshape(theirs.shape).sigmoid() > HALTED, -1, theirs)
    row.counted += int(sure.sum())
    row.equal += int(((ours == theirs) & sure).sum())


def _note(
    row: Row, what: str, ours: Tensor, io: Mapping[str, Tensor], names: Sequence[str], suffix: str
) -> None:
    for name in names:
        stored = gather(io, name, suffix, 1)
        if stored is not None and stored.ndim >= 3:
            theirs = rows(stored)
            row.errors[what] = max(row.errors.get(what, 0.0), error(ours, theirs))
            return


def _pictures(
    tok: tokenizers_vq.Tokenizer,
    codes: tokenizers_vq.Codes,
    io: Mapping[str, Tensor],
    suffix: str,
    row: Row,
    unit: bool,
) -> None:
    wanted = {
        key: v for key, v in io.items() if re.fullmatch(rf"recon(_raw|_len\d+)?{suffix}", key)
    }
    if f"recon_raw{suffix}" in wanted:  # then the other is clamped
        wanted.pop(f"recon{suffix}", None)
    for key, theirs in wanted.items():
        prefix = re.search(r"_len(\d+)$", key)
        count = {"num_tokens": int(prefix[1])} if prefix else {}
        if theirs.shape[1] != 3:  # scores of codes: a first stage without pixels
            z_q = tok.quantizer.decode(codes.indices)[:, : count.get("num_tokens")]
            ours = tok.decoder.logits(z_q).movedim(-1, 1)
        else:
            ours = tok.decode(codes, raw=True, **count)
            ours = (ours + 1) / 2 if unit else ours
        row.errors["recon"] = max(row.errors.get("recon", 0.0), error(ours, theirs))


def run_case(folder: Path) -> Row:
    """Import one case and compare it."""
    meta = json.loads((folder / "case.json").read_text())
    row = Row(folder.name, "?")
    if "config" not in meta or not (folder / "manifest.json").exists():
        row.note, row.skipped = "parts, not a tokenizer", True
        return row
    row.family = family_of(meta)
    try:
        state = read_weights(folder, meta)
        tok = tokenizers_vq.from_published(row.family, state, meta["config"])
        del state
        unit = meta.get("range", "").replace(" ", "") == "[0,1]"
        compare(tok, load_file(folder / "io.safetensors"), row, unit)
    except (RuntimeError, ValueError, ImportError) as failure:
        row.note = str(failure).splitlines()[0]
    return row


def line(row: Row) -> str:
    """Return a row of the table."""
    shown = "  ".join(f"{what} {value:.1e}" for what, value in row.errors.items())
    result = row.note or f"{row.equal}/{row.counted} equal  {shown}"
    mark = "--" if row.skipped else "ok" if row.passed else "FAIL"
    return f"{mark:<4}  {row.case:<28} {row.family:<14} {result}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run every case; return the number of those that do not agree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", type=Path, help="folder of cases, or one case")
    parser.add_argument("--only", default="", help="regular expression of case names")
    arguments = parser.parse_args(argv)
    found = sorted(path.parent for path in arguments.cases.glob("**/case.json"))
    failed = 0
    for folder in found:
        if re.search(arguments.only, folder.name):
            row = run_case(folder)
            failed += not (row.passed or row.skipped)
            print(line(row), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
