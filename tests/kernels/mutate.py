"""Plants bugs in the CUDA search, one at a time, and shows that the test driver finds each.

Run: ``python tests/kernels/mutate.py [results file]``. Needs g++; many minutes of one core.
"""

import resource
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADING = """# Planted bugs, and how the tests of the CUDA search find them

`python tests/kernels/mutate.py tests/kernels/mutations.md`: each bug of its table alone, the driver
built with `{}` and run until its first failure.

| planted bug | found as |
|---|---|
"""
FLAGS = ["-std=c++17", "-O1", "-w", "-fsanitize=address"]

# [file in kernels/nearest_code/cuda], then lines: name | what is there | what the bug puts there.
BUGS = r"""
[filter_float32.cuh]
float32: no barrier in the step | cp_wait<0>();\n      __syncthreads(); | cp_wait<0>();
float32: no barrier before the end |   __syncthreads();\n  finish |   finish
float32: copies not waited for | cp_wait<0> | cp_wait<1>
float32: load into the buffer in use | load(buffer ^ 1 | load(buffer
[filter_bfloat16.cuh]
bfloat16: no barrier in the step | cp_wait<0>();\n      __syncthreads(); | cp_wait<0>();
bfloat16: no barrier before the end |   __syncthreads();\n  finish |   finish
bfloat16: copies not waited for | cp_wait<0> | cp_wait<1>
bfloat16: one buffer of half norms | codes + buffer + L::STEP | codes + L::STEP
streamed rows: first buffer only | STREAMED ? buffer > 0 : step | STREAMED ? 0 : step
bfloat16: wrong fragment | j % 2 * 2 + 1] | j % 2 * 2]
bfloat16: wrong row of a result | i % 2 * 8 + lane / 4 | i % 2 * 8 + lane % 8
bfloat16: wrong column of a result | warp_code + lane % 4 * 2 | warp_code + lane % 4
kept rows: first step only | STREAMED ? buffer > 0 : step | STREAMED ? buffer > 0 : 0
bfloat16: copies not swizzled | L::place(thread / L::PIECES, thread % L::PIECES) | thread * 8
bfloat16: centre where codes land | <float*>(codes + L::BUFFER) | <float*>(codes)
bfloat16: rows kept before they are there | if (L::KEPT) {\n    __syncthreads(); | if (L::KEPT) {
bfloat16: half norms of even codes twice | lane / 8 % 2 * 8 | 0
[refine.cuh]
tie goes to the highest index | k < code && | k > code &&
reduction over half a warp | int bits = 16 | int bits = 8
too many candidates go unnoticed | row) > CANDIDATES | row) > 1000 * CANDIDATES
codes of the padding judged | bool wanted = k < in.codes | bool wanted = true
half of a candidate's codes | q < 8; q += 4 | q < 4; q += 4
distance from half of the lanes | bits = TOGETHER / 2 | bits = TOGETHER / 4
product: an infinite code wins | v > -infinity() && | true &&
product: value with the wrong sign | in.product ? -nearest | in.product ? nearest
product: judged by the distance | product ? __dmul_rn(mine, its) | false ? __dmul_rn(mine, its)
[nearest_code.cuh]
product: half norms in the scores | p.product ? 0 : 0.5 | 0.5
product: seen from a centre | p.product ? 0 : p.codes | p.codes
[residual.cuh]
stack: the sum starts anew | first ? 0.0f | true ? 0.0f
stack: the sum starts with what is there | first ? 0.0f | false ? 0.0f
stack: always the first codebook's code | stages[m - 1] | stages[0]
stack: x searched again | wanted = rest | wanted = x
stack: indices side by side | p.index_stride = depth; | ;
stack: the rest as far apart as x | p.row_stride = p.channels; | ;
stack: another order of rounding | d) - total | d) - code[d] - (total - code[d])
stack: one row too many | row >= rows | row > rows
[primitives.cuh]
sum over half a warp | int bits = 16 | int bits = 8
order of negative floats | return bits < 0 ? bits ^ 0x7fffffff | return bits < 0 ? bits
[prepare.cuh]
bfloat16: half norms in order | inside / 8 * 8 + inside % 2 * 4 + inside % 8 / 2 | inside
norm instead of half norm | (part * norm) | (norm)
[filter.cuh]
no margin | 2.02f * e | 0.0f * e
product: filter's margin of a distance | codes.product ? 0.0f | false ? 0.0f
product: judge's margin of a distance | codes.product ? norm * C | false ? norm * C
one row too many | row < in.rows && d < in | row <= in.rows && d < in
one channel too many | d < in.channels; | d <= in.channels;
last split past the end | if (to > in.tiles) to = in.tiles; | ;
rows taken before the centre is there | __syncthreads();\n  for (int r | for (int r
"""


def bugs() -> dict[str, tuple[str, str, str]]:
    """Return file, what is there and what the bug puts there, by the names in ``BUGS``."""
    found, file = {}, ""
    for line in BUGS.strip().splitlines():
        if line.startswith("["):
            file = line.strip("[]")
        else:
            name, old, new = (part.replace(r"\n", "\n").strip(" ") for part in line.split("|"))
            found[name] = file, old, new
    return found


def build(folder: Path, bug: tuple[str, str, str] | None) -> Path:
    """Copy sources to ``folder``, plant ``bug`` there and return the compiled driver."""
    for part in ("kernels/nearest_code/cuda", "kernels/simt", "tests/kernels"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    if bug is not None:
        path = folder / "kernels/nearest_code/cuda" / bug[0]
        text = path.read_text()
        if bug[1] not in text:
            raise SystemExit(f"mutate: expected {bug[1]!r} in {bug[0]}; it is gone. Adapt BUGS.")
        path.write_text(text.replace(bug[1], bug[2]))
    source, program = folder / "tests/kernels/driver.cpp", folder / "driver"
    subprocess.run(["g++", *FLAGS, str(source), "-o", str(program)], check=True)
    return program


def verdict(program: Path) -> tuple[bool, str]:
    """Run the driver until its first failure; return whether there was one, and its words."""
    done = subprocess.run(
        [program, "first"], capture_output=True, text=True, timeout=1800, check=False
    )
    if done.returncode == 0:
        return False, f"nothing: {done.stdout.splitlines()[-1]}"
    if "ERROR: AddressSanitizer" in done.stderr:
        kind = done.stderr.split("ERROR: AddressSanitizer: ")[1].split()[0]
        return True, f"AddressSanitizer: {kind}"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    words = failed[0].removeprefix("FAILED ") if failed else f"exit status {done.returncode}"
    return True, words.strip(" ,")


def examine(item: tuple[str, tuple[str, str, str] | None]) -> tuple[str, bool]:
    """Return the table row of one bug (or of none), and whether it came out as it should."""
    name, bug = item
    with tempfile.TemporaryDirectory() as folder:
        found, words = verdict(build(Path(folder), bug))
    return f"| {name} | {words} |\n", found == (bug is not None)


def main() -> int:
    """Run all bugs, print a table, to a file, too, if one is named; return how many survived."""
    planted, survived = bugs(), 0
    page = HEADING.format(" ".join(FLAGS))
    with ThreadPoolExecutor(2) as pool:
        for row, right in pool.map(examine, {"(none)": None, **planted}.items()):
            survived += not right
            page += row
            sys.stdout.write(row)
            sys.stdout.flush()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    last = (
        f"{len(planted)} bugs, {survived} not found, {used.ru_utime + used.ru_stime:.0f} s CPU.\n"
    )
    sys.stdout.write(last)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(f"{page}\n{last}")
    return survived


if __name__ == "__main__":
    sys.exit(main())
