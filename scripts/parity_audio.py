"""Compare imported codecs with outputs of the published code: ``python scripts/parity_audio.py F``.

F holds one folder per case, or is one, named ``<family>..``: ``config.json`` (constructor values),
``shapes.json`` (every upstream key with shape and dtype), ``io.safetensors`` (the input and what
the published code made of it), and where they are needed ``weights.safetensors`` or
``extra.safetensors``. Without stored weights they are a function of their key and shape. Each case
goes through ``tokenizers_vq.from_published``; the table of ``docs/published.md`` is printed.

Codes have to be equal at every level. Latents may differ by 1e-3 of their standard deviation, and
audio decoded from the stored codes, whole positions without clamping, by 2e-4 at any sample.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

import tokenizers_vq

# What a case's name begins with, family, order of the axes of its codes.
FAMILIES = (
    ("encodec", "encodec", "BKT"),
    ("dac", "dac", "BKT"),
    ("snac", "snac", "BKT"),
    ("bigcodec", "bigcodec", "KBT"),
    ("speechtokenizer", "speechtokenizer", "KBT"),
    ("dmcodec", "dm_codec", "KBT"),
    ("wavtokenizer", "wavtokenizer", "KBT"),
    ("languagecodec", "languagecodec", "KBT"),
    ("simvq", "simvq_audio", "KBT"),
    ("vocos", "vocos", "KBT"),
    ("mimi", "mimi", "BKT"),
    ("stablecodec", "stable_codec", "BTK"),
    ("s3tokenizer", "s3_tokenizer", "BT"),
    ("glm4voice", "glm4_voice", "BT"),
    ("xytokenizer", "xy_tokenizer", "KBT"),
)
LATENTS = ("latents", "latent", "encoder_out", "pre_bottleneck")
CODES = r"(posthoc_\w+_tokens|codes(_nq\d+|_bw[\d.]+_frame0)?|tokens)"  # of whole signals
HEAD = (
    "| family | case | levels | codes equal | latents | audio |",
    "|---|---|---|---:|---:|---:|",
)
BOUNDS = {"latents": 1e-3, "audio": 2e-4}


@dataclass
class Row:
    """What one case came to.

    Attributes:
        case: its name.
        family: what it was imported as.
        levels: equal codes and all codes, for each level of each set of codes.
        errors: of latents by their standard deviation, of audio at any sample.
        note: why nothing was compared.
        skipped: whether that is no failure.
        decodes: whether there is audio to compare.
    """

    case: str
    family: str = "?"
    levels: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    note: str = ""
    skipped: bool = False
    decodes: bool = True

    @property
    def passed(self) -> bool:
        """Whether there are codes, all agree at every level, and every error is in its bound."""
        counts = [count for levels in self.levels.values() for count in levels]
        equal = all(same == count for same, count in counts)
        within = all(error <= BOUNDS[what] for what, error in self.errors.items())
        heard = "audio" in self.errors or not self.decodes
        return not self.note and bool(counts) and heard and equal and within

    def count(self, name: str, ours: Tensor, theirs: Tensor) -> None:
        """Count equal codes ``(B, T, K)`` by level; none are equal where the shapes differ."""
        fits = ours.shape == theirs.shape
        same = (ours == theirs).sum((0, 1)).tolist() if fits else [0] * theirs.shape[-1]
        total = theirs.shape[0] * theirs.shape[1]
        self.levels[name] = [(number, total) for number in same]

    def worse(self, what: str, error: float) -> None:
        """Keep the larger error."""
        self.errors[what] = max(self.errors.get(what, 0.0), error)


def generated(key: str, shape: Sequence[int]) -> Tensor:
    """Return the tensor of a key: normal numbers seeded by its name, scaled by what it is."""
    normal = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(shape) or (1,))
    values: Any = normal.astype(np.float32)
    leaf, axes = key.rpartition(".")[2], len(shape)
    gain = axes == 3 and shape[0] == 1 and leaf not in ("weight_v", "weight")
    if leaf in ("weight_g", "original0"):
        values = 1.0 + 0.1 * values
    elif leaf in ("alpha", "beta") and axes and "norm" not in key:
        values = 1.0 + 0.1 * np.abs(values)
    elif not gain and axes >= 2:
        values = values / np.sqrt(max(int(np.prod(shape[1:])), 1))
    elif gain or leaf in ("weight", "gamma", "scale"):
        values = 1.0 + 0.1 * values
    elif leaf in ("cluster_size", "cluster_usage"):
        values = 1.0 + np.abs(values)
    elif leaf in ("inited", "initialized", "_initialized"):
        values = np.ones_like(values)
    else:
        values = 0.02 * values
    return torch.from_numpy(values.astype(np.float32).reshape(tuple(shape)))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the upstream state dict of a case."""
    whole, stored = folder / "weights.safetensors", folder / "extra.safetensors"
    if whole.exists():
        state: dict[str, Tensor] = load_file(whole)
        return state
    extra = load_file(stored) if stored.exists() else {}
    shapes = json.loads((folder / "shapes.json").read_text())
    return {
        key: extra[key] if key in extra else generated(key, shape).to(getattr(torch, dtype))
        for key, (shape, dtype) in shapes.items()
    }


def levels_last(codes: Tensor, order: str) -> Tensor:
    """Return codes whose axes are in ``order`` as ``(B, T, K)``."""
    if "K" not in order:
        codes, order = codes[..., None], order + "K"
    return codes.long().permute(*(order.index(axis) for axis in "BTK"))


def stored_codes(io: Mapping[str, Tensor], order: str) -> dict[str, Tensor]:
    """Return every set of codes of the whole signal as ``(B, T, K)`` by name."""
    if "codes_0" in io:  # one tensor (B, T_i) for each rate, slow ones first
        rates = sorted(key for key in io if re.fullmatch(r"codes_\d+", key))
        return {"codes": torch.cat([io[key] for key in rates], dim=1)[..., None].long()}
    found = {k: levels_last(v, order) for k, v in io.items() if re.fullmatch(CODES, k)}
    if "codes_lengths" in io:  # of a padded signal; the authors drop a last position that is cut
        found = {k: v[:, : int(io["codes_lengths"][0])] for k, v in found.items()}
    return found


def decodings(io: Mapping[str, Tensor], name: str) -> dict[str, dict[str, int]]:
    """Return the stored outputs that belong to a set of codes, with our options of ``decode``."""
    key = re.sub(r"_frame0$", "", name).replace("codes", "decoded")
    key = "decoded" if name == "tokens" else key.replace("_tokens", "_decoded")
    found: dict[str, dict[str, int]] = {key: {}} if key in io else {}
    if name == "codes":
        other = {k: re.fullmatch(r"decoded_bw(\d)", k) for k in io}
        found |= {k: {"bandwidth_id": int(m[1])} for k, m in other.items() if m}
    return found


def audio_error(ours: Tensor, theirs: Tensor, stride: int) -> float:
    """Return the largest difference; lengths may differ by less than one position."""
    shared = min(ours.shape[-1], theirs.shape[-1])
    if max(ours.shape[-1], theirs.shape[-1]) - shared >= stride:
        return float("inf")
    theirs = theirs.reshape(*ours.shape[:2], -1)[..., :shared]
    return float((ours[..., :shared] - theirs).abs().max())


@torch.no_grad()
def compare(
    tok: tokenizers_vq.Tokenizer, io: Mapping[str, Tensor], order: str, name: str, row: Row
) -> None:
    """Compare one set of codes and what is decoded from it."""
    x = io["input"].reshape(-1, tok.signal.channels, io["input"].shape[-1])
    theirs = stored_codes(io, order)[name]
    fewer = theirs.shape[-1] < tok.quantizer.num_codebooks
    codes = tok.encode(x, num_codebooks=theirs.shape[-1] if fewer else None)
    kept = theirs.shape[1] if "codes_lengths" in io else None
    row.count(name, codes.indices[:, :kept], theirs)
    for key, options in decodings(io, name).items():
        ours = tok.decode(tok.quantizer.complete(theirs), raw=True, **options)
        row.worse("audio", audio_error(ours, io[key], tok.stride[0]))
    if "hidden" in io:  # rows in front of the last map
        error = (tok.encoder.hidden(x) - io["hidden"]).abs().max() / io["hidden"].std()
        row.worse("latents", float(error))
    stored = next((io[key] for key in LATENTS if key in io), None)
    if stored is not None and not name.startswith("posthoc"):
        ours = tok.encoder(tok.encoder.frame(x)).mT
        fits = ours.shape == stored.shape
        error = float((ours - stored).abs().max() / stored.std()) if fits else float("inf")
        row.worse("latents", error)


@torch.no_grad()
def compare_short(tok: tokenizers_vq.Tokenizer, io: Mapping[str, Tensor], row: Row) -> None:
    """Compare signals of a few samples, stored as ``in_<n>``, ``codes_<n>`` and ``dec_<n>``."""
    for key in sorted(key for key in io if key.startswith("in_")):
        n = key.removeprefix("in_")
        theirs = levels_last(io[f"codes_{n}"], "BKT")
        codes = tok.encode(io[key], num_codebooks=theirs.shape[-1])
        row.count(f"{n} samples", codes.indices, theirs)
        ours = tok.decode(tok.quantizer.complete(theirs), raw=True)
        row.worse("audio", audio_error(ours, io[f"dec_{n}"], tok.stride[0]))


def presets(names: Sequence[str]) -> dict[str, str]:
    """Return the bit rate of stable-codec's ``posthoc_bottleneck`` for names of stored codes."""
    from tokenizers_vq.published.stable_codec import PRESETS

    stems = {name: name.removeprefix("posthoc_").removesuffix("_tokens") for name in names}
    return {
        name: preset
        for name, stem in stems.items()
        for preset in PRESETS
        if name.startswith("posthoc") and preset.startswith(f"{stem}_")
    }


def run_case(folder: Path) -> Row:
    """Import one case and compare it."""
    row = Row(folder.name)
    known = [entry for entry in FAMILIES if folder.name.startswith(entry[0])]
    if not known:
        row.note, row.skipped = "no importer of this family", True
        return row
    _, row.family, order = known[0]
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    io = load_file(folder / "io.safetensors")
    try:
        state = read_weights(folder)
        tok = tokenizers_vq.from_published(row.family, state, config)
        row.decodes = tok.decodable
        names = list(stored_codes(io, order))
        chosen = presets(names)
        for name in names:
            if name in chosen:
                values = {**config, "posthoc_bottleneck": chosen[name]}
                other = tokenizers_vq.from_published(row.family, state, values)
                compare(other, io, order, name, row)
            else:
                compare(tok, io, order, name, row)
        if (folder / "short_inputs.safetensors").exists():
            compare_short(tok, load_file(folder / "short_inputs.safetensors"), row)
    except (RuntimeError, ValueError, ImportError) as failure:
        row.note = str(failure).splitlines()[0]
    return row


def line(row: Row) -> str:
    """Return the row of the table: over all sets of codes, signals and levels of a case."""
    if row.note:
        return f"| `{row.family}` | {row.case} | {row.note} | | | |"
    counts = [count for levels in row.levels.values() for count in levels]
    same, total = (sum(column) for column in zip(*counts, strict=True))
    sizes = ", ".join(map(str, sorted({len(levels) for levels in row.levels.values()})))
    latents, audio = (
        f"{row.errors[what]:.1e}" if what in row.errors else "" for what in ("latents", "audio")
    )
    heard = audio if row.decodes else "encodes"
    start = f"| `{row.family}` | {row.case} | {sizes} | {same} of {total} |"
    return f"{start} {latents} | {heard} |"


def details(row: Row) -> list[str]:
    """Return what was equal in each set of codes of a case that does not agree."""
    return [
        f"{row.case} {name}: of {levels[0][1]} per level {' '.join(str(n) for n, _ in levels)}"
        for name, levels in row.levels.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run every case; return the number of those that do not agree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", type=Path, help="folder of cases, or one case")
    parser.add_argument("--only", default="", help="regular expression of case names")
    arguments = parser.parse_args(argv)
    failed = 0
    print(*HEAD, sep="\n", flush=True)
    for folder in sorted(path.parent for path in arguments.cases.glob("**/config.json")):
        if re.search(arguments.only, folder.name):
            row = run_case(folder)
            failed += not (row.passed or row.skipped)
            print(line(row), flush=True)
            if not (row.passed or row.skipped):
                print(*details(row), sep="\n", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
