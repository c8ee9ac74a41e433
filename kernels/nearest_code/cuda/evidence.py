"""Compiles the CUDA kernels for all architectures and writes what can be read off without a GPU.

Run: ``python kernels/nearest_code/cuda/evidence.py [evidence.md]``. Needs nvcc, and cuobjdump from
PATH or from triton.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
NVCC = shutil.which("nvcc") or "nvcc"
ARCHES = ("80", "86", "89", "90", "100", "120")
THREADS = 256
PAIRS = 64  # (row, code) pairs that a thread scores per tile
Instruction = tuple[int, str]


def cuobjdump() -> str:
    """Return the path of cuobjdump."""
    found = shutil.which("cuobjdump")
    spec = importlib.util.find_spec("triton")
    if found is None and spec is not None and spec.origin is not None:
        found = str(Path(spec.origin).parent / "backends/nvidia/bin/cuobjdump")
    if found is None:
        raise SystemExit(
            "evidence: expected cuobjdump; got none. Install triton or the CUDA tools."
        )
    return found


def said_by(command: list[str]) -> str:
    """Return what a program prints, or end with it if the program fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout + done.stderr


def build(target: Path) -> str:
    """Compile for all architectures and PTX, warnings as errors, and return what ptxas says."""
    last = ARCHES[-1]
    command = [NVCC, "-std=c++17", "-O3", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra"]
    command += [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHES]
    command += [f"-gencode=arch=compute_{last},code=compute_{last}", "-Xptxas", "-v", "-c"]
    return said_by([*command, str(HERE / "nearest_code.cu"), "-o", str(target)])


def short(mangled: str) -> str:
    """Return a readable name of a kernel."""
    name = re.search(r"nearest_code\d+([a-z_0-9]+?)(?:I(.*?)EEv|E)", mangled)
    if name is None:
        return mangled
    numbers = re.findall(r"L[ib](\d+)", name.group(2) or "")
    kind = {"f": "float", "t": "bf16"}.get(name.group(2) or "", ",".join(numbers))
    base = re.sub(r"I.*", "", name.group(1))
    return f"{base}<{kind}>" if kind else base


def registers(log: str) -> list[str]:
    """Return table rows (kernel, architecture, registers, registers x threads, stack, spills)."""
    pattern = (
        r"function '(\S+)' for 'sm_(\d+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers"
    )
    found: dict[str, list[tuple[int, ...]]] = {}
    for name, *numbers in re.findall(pattern, log, re.DOTALL):
        found.setdefault(short(name), []).append(tuple(int(n) for n in numbers))
    rows = []
    for name, entries in sorted(found.items()):
        cells = {
            arch: (stack, stores + loads, used) for arch, stack, stores, loads, used in entries
        }
        used = " / ".join(str(cells[int(a)][2]) for a in ARCHES)
        most = max(c[2] for c in cells.values()) * THREADS
        spills, stack = sum(c[1] for c in cells.values()), max(c[0] for c in cells.values())
        rows.append(f"| `{name}` | {used} | {most} | {stack} | {spills} |")
    return rows


def listing(program: Path, arch: str) -> dict[str, list[Instruction]]:
    """Return the machine code of every kernel for one architecture."""
    text = said_by([cuobjdump(), "-sass", "-arch", f"sm_{arch}", str(program)])
    kernels: dict[str, list[Instruction]] = {}
    here: list[Instruction] = []
    for line in text.splitlines():
        if (name := re.search(r"Function : (\S+)", line)) is not None:
            here = kernels.setdefault(short(name.group(1)), [])
        if (code := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", line)) is not None:
            here.append((int(code.group(1), 16), code.group(2)))
    return kernels


def operation(text: str) -> str:
    """Return the name of an instruction, with ``.128`` for wide memory operations."""
    word = re.sub(r"^@!?U?P\w+\s+", "", text).split()[0]
    return word.split(".")[0] + (".128" if ".128" in word else "")


def target(text: str) -> int | None:
    """Return where a branch goes."""
    found = re.search(r"\bBRA\S*\s.*?(0x[0-9a-f]+)", text)
    return int(found.group(1), 16) if found else None


def blocks(code: list[Instruction]) -> list[list[Instruction]]:
    """Split code at branches and their targets."""
    targets = {
        int(t, 16)
        for _, text in code
        for t in re.findall(r"(?:BRA|BSSY)\S*\s.*?(0x[0-9a-f]+)", text)
    }
    result: list[list[Instruction]] = [[]]
    for at, text in code:
        if at in targets and result[-1]:
            result.append([])
        result[-1].append((at, text))
        if "BRA" in text:
            result.append([])
    return [b for b in result if b]


def hot(code: list[Instruction], kind: str) -> list[list[Instruction]]:
    """Return the blocks of the loop over tiles that a tile without candidates runs through.

    The rare path is what a forward branch jumps over and holds an atomic of shared memory.
    """
    math = [at for at, text in code if operation(text) == kind]
    loops = [(t, at) for at, text in code if (t := target(text)) is not None and t <= at]
    wide = [(t, at) for t, at in loops if sum(t <= m <= at for m in math) > 0.8 * len(math)]
    has_minima = [
        (t, at) for t, at in wide if any(operation(x) == "FMNMX" for a, x in code if t <= a <= at)
    ]
    start, end = min(has_minima, key=lambda r: r[1] - r[0])
    cold = []
    for at, text in code:
        to = target(text)
        if to is None or to <= at or "@" not in text:
            continue
        inside = [operation(x) for a, x in code if at < a < to]
        if (
            "ATOMS" in inside
            and not {"BAR", "HMMA", "LDGSTS.128"} & set(inside)
            and inside.count("FFMA") < 9
        ):
            cold.append((at, to))
    return [
        b
        for b in blocks(code)
        if start <= b[0][0] <= end and not any(a < b[0][0] < t for a, t in cold)
    ]


def mix(name: str, code: list[Instruction]) -> str:
    """Return the table row of one kernel.

    A kernel has one block of products for the first step of a tile, which starts the sums, and a
    leaner one for the other steps; those for few channels have one step per tile only, in one
    block with the minima.
    """
    math = "FFMA" if "float32" in name else "HMMA"
    counts = [Counter(operation(text) for _, text in block) for block in hot(code, math)]
    products = sorted((c for c in counts if c[math] > 8), key=Counter.total)
    rest = sum((c for c in counts if c[math] <= 8), Counter())
    lean = products[0] + rest
    minima = lean["FMNMX"] + lean["FSETP"]
    step, load = lean.total() - minima, lean["LDS.128" if math == "FFMA" else "LDSM"]
    tile = products[-1] + rest
    other = tile.total() - tile[math] - tile["LDS.128" if math == "FFMA" else "LDSM"]
    shares = f"{lean[math] / step:.2f} | {lean[math] / load:.1f} | {minima / PAIRS:.2f}"
    local = sum(operation(text) in ("LDL", "STL") for _, text in code)
    return (
        f"| `{name}` | {step} | {lean[math]} | {load} | {lean['LDGSTS.128']} | {shares} "
        f"| {other / PAIRS:.2f} | {local} |"
    )


def report(program: Path, log: str) -> list[str]:
    """Return the lines of the tables for a compiled file and what ptxas said about it."""
    version = re.findall(r"V(\d\S+)", said_by([NVCC, "--version"]))[0]
    lines = [
        "# What the compiled kernels show without a GPU",
        "",
        f"Written by `evidence.py`; nvcc {version}, no warnings (they are errors), "
        f"sm_{', '.join(ARCHES)} and PTX of {ARCHES[-1]}.",
        "",
        "## Registers",
        "",
        f"| kernel | registers ({' / '.join(ARCHES)}) | registers x threads (<= 65536) | stack "
        "| spilled bytes |",
        "|---|---|---|---|---|",
        *registers(log),
    ]
    for arch in ("80", "90"):
        lines += ["", f"## Instructions, sm_{arch}", ""]
        lines += [
            "Per thread and step, minima apart; the path of a tile with candidates is left out.",
            "",
            "| kernel | step | FFMA or HMMA | LDS.128 or LDSM | LDGSTS.128 | share | math per load "
            "| minima per (row, code) | all but math and loads, one-step tile | LDL, STL |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        kernels = sorted(listing(program, arch).items())
        lines += [mix(name, code) for name, code in kernels if name.startswith("filter")]
    return lines


def main() -> None:
    """Write the tables."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "nearest_code.o"
        text = "\n".join(report(program, build(program))) + "\n"
    sys.stdout.write(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)


if __name__ == "__main__":
    main()
