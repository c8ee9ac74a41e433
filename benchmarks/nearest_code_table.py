"""Turns the measurements of ``nearest_code.py`` into a table with its bars."""

from collections.abc import Iterator
from typing import Any

Cell = dict[str, Any]
WIDTHS = (8, 16, 32, 64, 256)
# Ratios to reach, by width 8, 16, 32, 64 and 256 or more; None where there is no bar.
BARS = {
    "C1, K = 1024: float32 / peak": (0.42, 0.55, 0.62, 0.66, 0.74),
    "C1, K >= 8192: float32 / peak": (0.65, 0.72, 0.80, 0.82, 0.75),
    "C2, K = 1024: AVX2 / its peak": (0.45, 0.60, 0.68, 0.72, 0.75),
    "C2, K >= 8192: AVX2 / its peak": (0.65, 0.78, 0.82, 0.84, 0.84),
    "C3: float32 / sgemm alone": (5, 2.7, 2.3, 2.1, 1.8),
    "C3 on Intel: float32 / sgemm alone": (None, None, None, 0.85, 0.85),
    "C4: best / chunked addmm": (9, 5, 3.8, 2.8, 2.2),
    "C5: best / faiss": (1.0, 1.5, 2.4, 1.9, 1.4),
    "C5': float32 / faiss": (0.85, 1.25, 1.8, 1.3, 0.95),
    "C6, K >= 8192: bf16 filter / float32": (1.2, 1.4, 1.5, 1.5, 1.6),
    "C7, few rows: float32 / peak": (0.55, 0.55, 0.55, 0.55, 0.55),
}
COLUMNS = (
    "peak avx512", "peak avx2", "sgemm", "chunked", "cdist", "faiss", "vq-pytorch",
    "avx512", "avx512_bf16", "avx2",
)  # fmt: skip


def shape_of(name: str) -> tuple[int, int, int]:
    """Return ``N, K, d`` from the name of a cell."""
    rows, size, width = map(int, name.split()[1:])
    return rows, size, width


def ratios(shape: tuple[int, int, int], cell: Cell, intel: bool) -> dict[str, float]:
    """Return the ratio of each bar that this shape is about."""
    fast, slow, coarse = cell.get("avx512"), cell.get("avx2"), cell.get("avx512_bf16")
    if not fast or not slow:
        return {}
    if shape[0] < 1024:
        return {"C7, few rows: float32 / peak": fast / cell["peak avx512"]}
    where = "K = 1024" if shape[1] == 1024 else "K >= 8192"
    best = max(fast, coarse or 0)
    found = {
        f"C1, {where}: float32 / peak": fast / cell["peak avx512"],
        f"C2, {where}: AVX2 / its peak": slow / cell["peak avx2"],
        f"C3{' on Intel' if intel else ''}: float32 / sgemm alone": fast / cell["sgemm"],
        "C4: best / chunked addmm": best / cell["chunked"],
        "C5: best / faiss": best / cell["faiss"],
        "C5': float32 / faiss": fast / cell["faiss"],
    }
    if coarse and shape[1] > 1024:
        found["C6, K >= 8192: bf16 filter / float32"] = coarse / fast
    return found


def worst(data: Cell, intel: bool) -> Iterator[str]:
    """Yield a row per bar: the worst ratio of its shapes at each width, and whether it holds."""
    found: dict[tuple[str, int], float] = {}
    for name, cell in data.items():
        if name.startswith("speed"):
            shape = shape_of(name)
            column = min(WIDTHS.index(min(shape[2], 256)), 4)
            for bar, ratio in ratios(shape, cell, intel).items():
                found[bar, column] = min(ratio, found.get((bar, column), ratio))
    for bar, limits in BARS.items():
        words = []
        for column, limit in enumerate(limits):
            ratio = found.get((bar, column))
            if ratio is None or limit is None:
                words.append("")
            else:
                words.append(f"{ratio:.2f} ({limit:g}) {'met' if ratio >= limit else '**not**'}")
        if any(words):
            yield f"| {bar} | " + " | ".join(words) + " |"


def steps(data: Cell) -> Iterator[str]:
    """Yield the rows of the training steps (C10)."""
    floors = {8: 12, 64: 4, 256: 2.2}
    for name, cell in data.items():
        if name.startswith("step"):
            rows, size, width = shape_of(name)
            over, gain = cell["step"] / cell["search"], cell["addmm step"] / cell["step"]
            most = 1.2 if size >= 8192 else 1.7
            met = "met" if over <= most and gain >= floors[width] else "**not**"
            yield (
                f"| {rows} | {size} | {width} | {1e3 * cell['search']:.1f} | "
                f"{1e3 * cell['step']:.1f} | {1e3 * cell['addmm step']:.1f} | "
                f"{over:.2f} ({most}) | {gain:.1f} ({floors[width]}) | "
                f"{cell['difference']:.0e} | {met} |"
            )


def memories(data: Cell) -> Iterator[str]:
    """Yield the rows of the memory cells (C8)."""
    for name, cell in data.items():
        if name.startswith("memory"):
            if "failed" in cell:
                yield f"| {name[7:]} | failed | | | **not** |"
                continue
            cap = f"{cell['cap'] / 2**30:g} GiB" if cell["cap"] else ""
            met = "met" if cell["added"] <= cell["allowed"] else "**not**"
            added, allowed = cell["added"] / 2**20, cell["allowed"] / 2**20
            yield f"| {name[7:]} | {added:.1f} | {allowed:.1f} | {cap} | {met} |"


def accuracies(data: Cell) -> Iterator[str]:
    """Yield the rows of the accuracy table (C9)."""
    for name, cell in data.items():
        if name.startswith("data"):
            forms = ("torch", "generic", "avx2", "avx512", "avx512_bf16")
            peers = " | ".join(str(cell[peer]["wrong"]) for peer in ("cdist", "chunked", "faiss"))
            ours = " | ".join(
                f"{cell[form]['wrong']} ({cell[form]['gflops']:.0f})" if form in cell else ""
                for form in forms
            )
            size = " x ".join(map(str, cell["size"]))
            yield f"| {name[5:]} | {cell['rows']} | {size} | {peers} | {ours} |"


def markdown(data: Cell) -> str:
    """Return the page: bars, then what they are made of."""
    cells = data["cells"]
    intel = "Intel" in data["machine"]
    torch_version = data["environment"]["versions"].get("torch")
    commits = sorted({cell["commit"][:12] for cell in cells.values()})
    speeds = []
    for name, cell in cells.items():
        if name.startswith("speed"):
            values = (f"{cell[key]:.3g}" if key in cell else "" for key in COLUMNS)
            speeds.append("| " + " | ".join([*map(str, shape_of(name)), *values]) + " |")
    lines = [
        "# Nearest-code search",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/nearest_code.py --full`, one thread on one core, CPU",
        f"time. {data['machine']}. torch {torch_version}. The kernel used",
        f"unless told otherwise here: {data['preferred']}. Our commit: {', '.join(commits)}.",
        "",
        "## Bars: worst ratio of the shapes of a width (bar)",
        "",
        "| bar | d = 8 | 16 | 32 | 64 | 256 and 512 |",
        "|---|---|---|---|---|---|",
        *worst(cells, intel),
        "",
        "## GF/s = 2 N K d / CPU time",
        "",
        "| N | K | d | " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * (3 + len(COLUMNS)),
        *speeds,
        "",
        "## Training step, CPU ms (C10)",
        "",
        "Search, gather, straight-through, commitment, statistics, gradient.",
        "",
        "| N | K | d | search | step | addmm step | step / search | addmm / step | difference | |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *steps(cells),
        "",
        "## Memory that one search adds, MiB (C8)",
        "",
        "| N K d | added | allowed | address-space cap | |",
        "|---|---|---|---|---|",
        *memories(cells),
        "",
        "## Rows with another index than float64, and GF/s (C9)",
        "",
        "| data | rows | codebook | cdist | chunked addmm | faiss | torch form | generic | avx2 | "
        "avx512 | avx512_bf16 |",
        "|" + "---|" * 11,
        *accuracies(cells),
    ]
    return "\n".join(lines) + "\n"
