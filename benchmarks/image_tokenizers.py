"""Encode and decode of image CNNs: ours against a plain implementation on the same weights.

    python benchmarks/image_tokenizers.py [--family NAME ...] [--seconds S]

For each family: a state dict with the published names and widths of one size below the published
one (channels 64, published levels and blocks), imported by ``from_published``. The plain side is
the network of ``tests/reference/convnets.py`` with torch's own normalisation, padding, resampling
and swish in place of the spelt-out ones, as the published code has them. Both run in turn on the
same picture on one thread, and the least CPU time of each counts. Peak memory is of the tensors
that one call makes. Rows go to ``benchmarks/results/image_tokenizers.json``, and all of them as a
table to ``image_tokenizers.md`` beside it. VQGAN's descendants: ``benchmarks/image_vqgans.py``;
transformers: ``benchmarks/image_transformers.py``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from weakref import finalize

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from reference import convnets

from tokenizers_vq import from_published
from tokenizers_vq.evaluation.results import environment

RESULTS = ROOT / "benchmarks" / "results" / "image_tokenizers.json"
SIZE = 128
LEVELS = (1, 1, 2, 2, 4)
VERBS = ("encode", "decode")
HEAD = (
    "# Image tokenizers: ours against a plain implementation",
    "",
    "`OMP_NUM_THREADS=1 python benchmarks/image_tokenizers.py`, `image_vqgans.py` and",
    "`image_transformers.py`: one picture, one thread, least CPU time of runs in turn, peak of the",
    "tensors that a call makes.",
    "The docstrings of the scripts say what each side and each size is;",
)
COLUMNS = (
    "| family | pixels | encode ms, ours / plain | times | decode ms, ours / plain | times "
    "| peak MiB encode, ours / plain | decode | same indices |"
)
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "open_magvit2": ("magvit2", {"mult": LEVELS, "depth": 4, "dim": 18}, {}),
    "wetok": ("magvit2", {"mult": (1, 2, 2, 4), "depth": 4, "dim": 32}, {}),
    "simvq": (
        "magvit2",
        {"mult": (1, 2, 2, 4), "depth": 2, "dim": 64, "adaptive": False},
        {
            "quantize.embedding.weight": (8192, 64),
            "quantize.embedding_proj.weight": (64, 64),
            "quantize.embedding_proj.bias": (64,),
        },
    ),
    "maskgit_vqgan": (
        "maskgit",
        {"mult": LEVELS, "depth": 2, "dim": 256, "strided": False, "spelling": "block"}
        | {"backwards": True},
        {"quantize.embedding.weight": (1024, 256)},
    ),
    "vqgan_plus": (
        "maskgit",
        {"mult": LEVELS, "depth": 2, "dim": 64, "strided": True},
        {"quantize.embedding.weight": (4096, 64)},
    ),
    "maskbit": ("maskgit", {"mult": LEVELS, "depth": 2, "dim": 12, "strided": True}, {}),
}


class Memory(TorchDispatchMode):
    """Counts the bytes of tensors that are alive at once and were made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and count the storages it made, until they are freed."""
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            address = _address(leaf) if isinstance(leaf, Tensor) else 0
            if address and address not in given | self.known:
                storage = leaf.untyped_storage()
                self.known.add(address)
                self.now += storage.nbytes()
                finalize(storage, self._freed, address, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def _freed(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def plain_norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Group normalisation as the published code has it."""
    return F.group_norm(x, 32, state.get(f"{name}.weight"), state.get(f"{name}.bias"), 1e-6)


def plain_conv(
    state: dict[str, Tensor], name: str, x: Tensor, pad: tuple[int, ...] | None = None
) -> Tensor:
    """Convolution that pads by itself where it can, as the published code does."""
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    if pad is None or len(set(pad)) == 1:
        side = weight.shape[-1] // 2
        return F.conv2d(x, weight, bias, stride=1 if pad is None else 2, padding=side)
    return F.conv2d(F.pad(x, pad), weight, bias, stride=2)


def plain_cells(x: Tensor) -> Tensor:
    """Depth to space by one permutation, as the published code does."""
    batch, channels, height, width = x.shape
    blocks = x.view(batch, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
    return blocks.contiguous().view(batch, channels // 4, 2 * height, 2 * width)


def plain(family: str, state: dict[str, Tensor]) -> tuple[Callable, Callable]:
    """Return encode (picture to indices) and decode (indices to picture) of the plain side."""
    line = FAMILIES[family][0]
    encode_net, decode_net = (
        getattr(convnets, f"{line}_encode"),
        getattr(convnets, f"{line}_decode"),
    )
    table = state.get("quantize.embedding.weight")
    if family == "simvq":
        weight, bias = (state[f"quantize.embedding_proj.{part}"] for part in ("weight", "bias"))
        table = F.linear(table, weight, bias)
    bits = 8 if family == "wetok" else FAMILIES[family][1]["dim"]

    def encode(x: Tensor) -> Tensor:
        z = encode_net(state, x if line == "magvit2" else (x + 1) / 2)
        if table is None:
            powers = 2 ** torch.arange(bits)
            return ((z.movedim(1, -1).unflatten(-1, (-1, bits)) > 0) * powers).sum(-1)
        rows = z.movedim(1, -1).reshape(-1, table.shape[1])
        squares = rows.square().sum(1, keepdim=True) + table.square().sum(1)
        nearest = (squares - 2 * rows @ table.T).argmin(1)
        return nearest.reshape(z.shape[0], *z.shape[2:], 1)

    def decode(indices: Tensor) -> Tensor:
        if table is None:
            signs = (indices[..., None] >> torch.arange(bits)) & 1
            q = (2.0 * signs.flatten(-2) - 1).movedim(-1, 1).contiguous()
        else:
            q = table[indices[..., 0]].movedim(-1, 1).contiguous()
        x = decode_net(state, q)
        return x if line == "magvit2" else 2 * x - 1

    return encode, decode


def measure(pairs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Return the fastest time of each, run in turn for ``seconds``."""
    best = dict.fromkeys(pairs, float("inf"))
    for call in pairs.values():
        call()
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for name, call in pairs.items():
            start = time.thread_time()
            call()
            best[name] = min(best[name], time.thread_time() - start)
    return best


def peak_of(call: Callable[[], Any]) -> int:
    """Return the most bytes of tensors alive at once in ``call``."""
    with Memory() as memory:
        call()
    return memory.peak


@torch.no_grad()
def rows(family: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield times, ratios and peaks of one family."""
    line, options, extra = FAMILIES[family]
    shapes = getattr(convnets, f"{line}_shapes")(64, **options)
    state = convnets.fill({**shapes, **extra})
    ours = from_published(family, state)
    their_encode, their_decode = plain(family, state)
    yield row_of(family, ours, their_encode, their_decode, SIZE, seconds)


@torch.no_grad()
def row_of(
    family: str,
    ours: Any,
    their_encode: Callable[[Tensor], Tensor],
    their_decode: Callable[[Tensor], Tensor],
    size: int,
    seconds: float,
) -> dict[str, Any]:
    """Return times, ratios and peaks of a tokenizer and of the plain side on the same weights."""
    x = torch.rand(1, 3, size, size) * 2 - 1
    indices = ours.encode(x).indices
    same = float((their_encode(x) == indices).float().mean())
    calls = {
        "encode": {"ours": lambda: ours.encode(x), "plain": lambda: their_encode(x)},
        "decode": {
            "ours": lambda: ours.decode(indices, raw=True),
            "plain": lambda: their_decode(indices),
        },
    }
    found: dict[str, Any] = {"family": family, "size": size, "same_indices": same}
    for verb, pair in calls.items():
        times = measure(pair, seconds)
        found[verb] = {f"{who}_ms": round(1000 * t, 1) for who, t in times.items()}
        found[verb]["ratio"] = round(times["plain"] / times["ours"], 2)
        found[verb] |= {f"{who}_peak_mib": round(peak_of(c) / 2**20, 1) for who, c in pair.items()}
    theirs, own = their_decode(indices), ours.decode(indices, raw=True)
    found["picture_error"] = float(f"{(theirs - own).abs().max() / theirs.abs().max():.1e}")
    return found


def save(found: dict[str, Any]) -> None:
    """Add a row to the results, in place of the family's former one of that size."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    results["machine"] = {"cpu": cpu_name(), "threads": 1}
    results["torch"] = torch.__version__
    found["commit"] = environment("cpu")["commit"]
    kept = [one for one in results["rows"] if _key(one) != _key(found)]
    results["rows"] = sorted([*kept, found], key=_key)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(table(results))


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return row["family"], row["size"]


def cpu_name() -> str:
    """Return what the processor calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def table(results: dict[str, Any]) -> str:
    """Return the page with the results."""
    machine = f"torch {results['torch']}, {results['machine']['cpu']}"
    lines = [*HEAD, f"{machine}.", "", COLUMNS, "|---|---:|" + "---:|" * (COLUMNS.count("|") - 3)]
    for one in results["rows"]:
        cells = [one["family"], one["size"]]
        for times in (one[verb] for verb in VERBS):
            cells += [f"{times['ours_ms']} / {times['plain_ms']}", f"{times['ratio']:.2f}"]
        cells += [f"{one[verb]['ours_peak_mib']} / {one[verb]['plain_peak_mib']}" for verb in VERBS]
        lines.append(f"| {' | '.join(map(str, [*cells, one['same_indices']]))} |")
    return "\n".join(lines) + "\n"


def plain_torch() -> None:
    """Put torch's own operations into the spelt-out functions of ``tests/reference/convnets``."""
    convnets.norm = plain_norm
    convnets.conv = plain_conv
    convnets.cells = plain_cells
    convnets.swish = F.silu
    convnets.halved = lambda x: F.avg_pool2d(x, 2)
    convnets.doubled = lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest")


def command(
    doc: str | None, families: Iterable[str], rows: Callable[[str, float], Iterator[dict[str, Any]]]
) -> None:
    """Measure the families that the command line asks for, print their rows and keep them.

    Args:
        doc: docstring of the script.
        families: all there are.
        rows: gives those of a family, measured for so many seconds of CPU time per verb.
    """
    known = list(families)
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--family", nargs="*", default=known, choices=known)
    parser.add_argument("--seconds", type=float, default=6.0, help="of CPU time per verb")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for family in arguments.family:
        for found in rows(family, arguments.seconds):
            save(found)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    plain_torch()
    command(__doc__, FAMILIES, rows)
