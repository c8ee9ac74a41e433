"""Plants bugs in the CUDA search, one at a time, and shows that the test driver finds each.

Run: ``python tests/kernels/mutate.py [results file]``. Needs g++; several minutes of one core.
"""

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAIT = "cp_wait<0>();\n      __syncthreads();"
FLAGS = ["-std=c++17", "-O1", "-w", "-fsanitize=address"]

# name: (file in kernels/nearest_code/cuda, what is there, what the bug puts in its place)
BUGS = {
    "float32: no barrier in the step": ("filter_float32.cuh", WAIT, "cp_wait<0>();"),
    "bfloat16: no barrier in the step": ("filter_bfloat16.cuh", WAIT, "cp_wait<0>();"),
    "float32: no barrier before the end": (
        "filter_float32.cuh",
        "  __syncthreads();\n  finish",
        "  finish",
    ),
    "bfloat16: no barrier before the end": (
        "filter_bfloat16.cuh",
        "  __syncthreads();\n  finish",
        "  finish",
    ),
    "float32: copies not waited for": ("filter_float32.cuh", "cp_wait<0>", "cp_wait<1>"),
    "bfloat16: copies not waited for": ("filter_bfloat16.cuh", "cp_wait<0>", "cp_wait<1>"),
    "float32: load into the buffer in use": (
        "filter_float32.cuh",
        "load(buffer ^ 1",
        "load(buffer",
    ),
    "bfloat16: one buffer of half norms": ("filter_bfloat16.cuh", "tile % 2 * TILE", "0 * TILE"),
    "streamed rows: first buffer only": (
        "filter_bfloat16.cuh",
        "(STREAMED ? buffer : step) * L::STEP",
        "(STREAMED ? 0 : step) * L::STEP",
    ),
    "bfloat16: wrong fragment": ("filter_bfloat16.cuh", "j % 2 * 2 + 1]", "j % 2 * 2]"),
    "bfloat16: wrong row of a result": (
        "filter_bfloat16.cuh",
        "i % 2 * 8 + lane / 4",
        "i % 2 * 8 + lane % 8",
    ),
    "bfloat16: wrong column of a result": (
        "filter_bfloat16.cuh",
        "warp_code + lane % 4 * 2",
        "warp_code + lane % 4",
    ),
    "tie goes to the highest index": ("refine.cuh", "k < code &&", "k > code &&"),
    "reduction over half a warp": ("refine.cuh", "int bits = 16", "int bits = 8"),
    "sum over half a warp": ("primitives.cuh", "int bits = 16", "int bits = 8"),
    "order of negative floats": (
        "primitives.cuh",
        "return bits < 0 ? bits ^ 0x7fffffff",
        "return bits < 0 ? bits",
    ),
    "norm instead of half norm": ("prepare.cuh", "(0.5 * norm)", "(norm)"),
    "no margin": ("filter.cuh", "2.02f * e", "0.0f * e"),
    "too many candidates go unnoticed": (
        "refine.cuh",
        "row) > CANDIDATES",
        "row) > 1000 * CANDIDATES",
    ),
    "one row too many": ("filter.cuh", "row < in.rows && d < in", "row <= in.rows && d < in"),
    "one channel too many": ("filter.cuh", "d < in.channels;", "d <= in.channels;"),
    "last split past the end": ("filter.cuh", "if (to > in.tiles) to = in.tiles;", ""),
    "codes of the padding judged": (
        "refine.cuh",
        "bool wanted = k < in.codes",
        "bool wanted = true",
    ),
    "half of a candidate's codes": ("refine.cuh", "q < 8; q += 4", "q < 4; q += 4"),
    "distance from half of the lanes": ("refine.cuh", "bits = TOGETHER / 2", "bits = TOGETHER / 4"),
    "kept rows: first step only": (
        "filter_bfloat16.cuh",
        "(STREAMED ? buffer : step) * L::STEP",
        "(STREAMED ? buffer : 0) * L::STEP",
    ),
    "bfloat16: copies not swizzled": (
        "filter_bfloat16.cuh",
        "L::place(thread / L::PIECES, thread % L::PIECES)",
        "thread * 8",
    ),
    "bfloat16: centre where codes land": (
        "filter_bfloat16.cuh",
        "<float*>(codes + L::STEP)",
        "<float*>(codes)",
    ),
    "rows taken before the centre is there": (
        "filter.cuh",
        "__syncthreads();\n  for (int r",
        "for (int r",
    ),
}


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


def verdict(program: Path) -> str:
    """Run the driver until its first failure; return what it found, or ``survived``."""
    done = subprocess.run(
        [program, "first"], capture_output=True, text=True, timeout=1800, check=False
    )
    if done.returncode == 0:
        return "survived"
    if "ERROR: AddressSanitizer" in done.stderr:
        kind = done.stderr.split("ERROR: AddressSanitizer: ")[1].split()[0]
        return f"AddressSanitizer: {kind}"
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0].removeprefix("FAILED ") if failed else f"exit status {done.returncode}"


def examine(item: tuple[str, tuple[str, str, str] | None]) -> tuple[str, bool]:
    """Return the table row of one bug (or of none), and whether it came out as it should."""
    name, bug = item
    with tempfile.TemporaryDirectory() as folder:
        found = verdict(build(Path(folder), bug))
    right = (found == "survived") == (bug is None)
    return f"| {name} | {'all runs right' if bug is None and right else found} |", right


def main() -> int:
    """Run all bugs, print a table, to a file, too, if one is named; return how many survived."""
    lines, survived = ["| planted bug | found as |", "|---|---|"], 0
    with ThreadPoolExecutor(2) as pool:
        for line, right in pool.map(examine, {"(none)": None, **BUGS}.items()):
            survived += not right
            lines.append(line)
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            if len(sys.argv) > 1:
                Path(sys.argv[1]).write_text("\n".join(lines) + "\n")
    sys.stdout.write(f"{len(BUGS)} bugs, {survived} not found\n")
    return survived


if __name__ == "__main__":
    sys.exit(main())
