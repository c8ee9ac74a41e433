"""The Markdown page of benchmarks/quantizers.py: what was measured, and which bars it meets."""

from collections.abc import Iterator
from typing import Any

from rows import ROWS, bits_of

HEAD = """# Cost of our heads beside vector-quantize-pytorch {peer}

`OMP_NUM_THREADS=1 python benchmarks/quantizers.py` on {machine}; torch {torch}, one thread,
float32.

8,192 tokens (batch 8 x 1,024). Latent width 32; for LFQ and BSQ, the number of bits. "train" is
forward, backward and the codebook's own update (the peer's is inside forward); "encode" is the way
to indices in evaluation. CPU time is the best step of {rounds} processes per side, which take
turns; memory is a process's peak above what it had after the imports. "x less" is theirs divided by
ours: above 1, ours is cheaper.

`~`: a step would have taken more than the limits of its run (in the last one {gib:g} GiB or
{seconds:g} CPU seconds, five times that for ours), so fewer tokens were measured (in brackets) and
the value is on the line through two sizes, in tokens.
"""
NOTES = """
Our VQ at its defaults learns by gradient and restarts dead codes; the peer's learns by moving
averages with the rotation trick. The peer's `frac_per_sample_entropy` saves memory by estimating
both entropies from fewer tokens. Cells of earlier commits may have had other limits and a slower
search, and FSQ's, of milliseconds, took ten processes; `--again NAME` measures them anew.
"""
COLUMNS = (
    "| head | codes | | ours, CPU s | theirs, CPU s | x less | ours, MiB | theirs, MiB | x less |\n"
    "|---|---:|---|---:|---:|---:|---:|---:|---:|\n"
)
TIME_BAR, MEMORY_BAR, TABLE_CODES = 7.0, 10.0, 2**13
EXACT_SECONDS, EXACT_MIB = 0.5, 300.0
Cell = dict[str, Any]


def split(key: str) -> tuple[str, int, str]:
    """Return the name, number of codes and mode of a cell."""
    name, size, mode = key.split()
    return name, int(size), mode


def place(key: str) -> tuple[int, int, bool]:
    """Return what cells are sorted by: the order of ROWS, the number of codes, train first."""
    name, size, mode = split(key)
    return list(ROWS).index(name), size, mode == "encode"


def ratios(cell: Cell) -> tuple[float, float]:
    """Return how many times less CPU time and memory ours takes."""
    ours, theirs = cell["ours"], cell["theirs"]
    return theirs["best_s"] / ours["best_s"], max(theirs["mib"], 0.1) / max(ours["mib"], 0.1)


def shown(side: Cell, key: str, tokens: int) -> str:
    """Return one number, marked where it is extrapolated."""
    value = side[key]
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.4f}"
    return text if side["tokens"] == tokens else f"~{text} ({side['tokens']:,})"


def body(cells: dict[str, Cell]) -> Iterator[str]:
    """Yield the rows of the table."""
    for key, cell in cells.items():
        name, size, mode = split(key)
        ours, theirs = cell["ours"], cell["theirs"]
        time, memory = ratios(cell)
        numbers = [
            shown(ours, "best_s", 8192), shown(theirs, "best_s", 8192), f"**{time:.1f}**",
            shown(ours, "mib", 8192), shown(theirs, "mib", 8192), f"**{memory:.1f}**",
        ]  # fmt: skip
        yield f"| {ROWS[name].title} | {size:,} | {mode} | {' | '.join(numbers)} |"


def verdict(title: str, failures: list[str], count: int) -> str:
    """Return one line that says whether a bar is met, and where it is not."""
    if not count:
        return f"- **not measured**: {title}."
    if not failures:
        return f"- **met** in all {count} measured cells: {title}."
    where = "; ".join(failures)
    missed = f"{len(failures)} of {count} measured cells"
    return f"- **missed** in {missed}: {title}. Not in: {where}."


def bars(cells: dict[str, Cell]) -> Iterator[str]:
    """Yield one line per bar."""
    slow, costly, large, tables, exact, binary = [], [], [], 0, [], 0
    for key, cell in cells.items():
        name, size, mode = split(key)
        time, memory = ratios(cell)
        where = f"{name} {size:,} {mode}"
        slow += [f"{where} ({time:.2f})"] * (time < 1)
        if ROWS[name].table and size >= TABLE_CODES:
            tables += 1
            costly += [f"{where} ({time:.1f})"] * (time < TIME_BAR)
            large += [f"{where} ({memory:.1f})"] * (memory < MEMORY_BAR)
        if name in ("lfq", "bsq") and bits_of(size) == 18 and mode == "train":
            binary += 1
            ours = cell["ours"]
            failed = ours["best_s"] >= EXACT_SECONDS or ours["mib"] >= EXACT_MIB
            exact += [f"{where} ({ours['best_s']:.2f} s, {ours['mib']:.0f} MiB)"] * failed
    family = "VQ, cosine VQ and residual VQ from 8,192 codes"
    yield verdict("never slower than the peer", slow, len(cells))
    yield verdict(f"{family}: 7 x less CPU time", costly, tables)
    yield verdict(f"{family}: 10 x less memory", large, tables)
    yield verdict("LFQ and BSQ of 18 bits, exact entropy: below 0.5 s and 300 MiB", exact, binary)


def largest(cells: dict[str, Cell]) -> Iterator[str]:
    """Yield the line about 262,144 codes."""
    cell = cells.get(f"vq {2**18} train")
    if cell and cell["ours"]["tokens"] == 8192:
        ours = cell["ours"]
        yield (
            "- **met**: VQ with 262,144 codes trains on this machine, "
            f"{ours['best_s']:.1f} s and {ours['mib']:,.0f} MiB a step of 8,192 tokens."
        )
    else:
        yield "- **not measured**: VQ with 262,144 codes trains on this machine."


def missing(cells: dict[str, Cell]) -> str:
    """Return the line that names what is not measured yet."""
    left = [
        f"{name} {size:,} {mode}"
        for name, row in ROWS.items()
        for size in row.sizes
        for mode in ("train", "encode")
        if f"{name} {size} {mode}" not in cells and (name, mode) != ("lfq_tenth", "encode")
    ]
    return f"- **not measured yet**: {'; '.join(left) or 'nothing'}."


def markdown(data: Cell) -> str:
    """Return the page."""
    versions, cells = data["environment"]["versions"], data["cells"]
    cells = {key: cells[key] for key in sorted(cells, key=place)}
    runs = sorted({cell[side]["runs"] for cell in cells.values() for side in ("ours", "theirs")})
    limits = data["limits"] | {"rounds": f"{runs[0]} to {runs[-1]}"}
    head = HEAD.format(
        peer=data["peer"], machine=data["machine"], torch=versions["torch"], **limits
    )
    commits = ", ".join(sorted({cell["commit"][:12] for cell in cells.values()}))
    parts = [
        head, COLUMNS + "\n".join(body(cells)),
        "\n## Bars\n", "\n".join([*bars(cells), *largest(cells), missing(cells)]),
        NOTES,
        f"Our commits: {commits}.\n",
    ]  # fmt: skip
    return "\n".join(parts)
