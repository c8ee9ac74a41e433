"""Compile the kernels with the C++ compiler at hand: ``python kernels/build.py``.

Needs g++ (or ``CXX``), Python's headers and an installed torch, whose headers and libraries it
uses; downloads nothing. Without them the package works in plain torch, and one line says so.
Set ``TOKENIZERS_VQ_REQUIRE=cpu`` to make that an error.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "kernels").glob("*/*.cpp"))
MODULE = Path("tokenizers_vq/ops/_C.abi3.so")
FLAGS = [
    "-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi",
    "-Wno-maybe-uninitialized",  # GCC's own AVX-512 headers
    "-ffp-contract=off",  # the deciding sums round the same on every machine
    "-DTORCH_TARGET_VERSION=0x020a000000000000",  # the stable ABI of torch 2.10 and later
    "-DPy_LIMITED_API=0x030a0000",
]  # fmt: skip


class Skipped(Exception):
    """Nothing was compiled; the message says why."""


def build(target: Path, work: Path) -> None:
    """Compile and link ``SOURCES`` into the shared library ``target``.

    Args:
        target: the file to write.
        work: a folder for object files, made if missing.

    Raises:
        Skipped: the compiler, torch or Python's headers are missing, or the compiler failed.
    """
    compiler, torch = _compiler(), _torch()
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").is_file():
        raise Skipped("Python's headers are not installed")
    flags = [*FLAGS, "-isystem", str(torch / "include"), "-isystem", include]
    work.mkdir(parents=True, exist_ok=True)
    objects = [work / f"{source.parent.name}_{source.stem}.o" for source in SOURCES]
    commands = [
        [compiler, *flags, "-c", str(source), "-o", str(obj)]
        for source, obj in zip(SOURCES, objects, strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    target.parent.mkdir(parents=True, exist_ok=True)
    linked = work / target.name
    # torch is loaded privately by Python, so the library has to name what it needs itself.
    link = [compiler, "-shared", *map(str, objects), "-o", str(linked)]
    _run([*link, f"-L{torch / 'lib'}", "-ltorch_cpu"])
    linked.replace(target)


def attempt(target: Path, work: Path) -> bool:
    """Build, say in one line what came of it, and return whether there is a library.

    Raises:
        SystemExit: nothing was compiled although ``TOKENIZERS_VQ_REQUIRE=cpu`` asks for it.
    """
    try:
        build(target, work)
    except Skipped as reason:
        if "cpu" in os.environ.get("TOKENIZERS_VQ_REQUIRE", "").split(","):
            raise SystemExit(
                f"tokenizers_vq: CPU kernels required but not built: {reason}"
            ) from None
        _say(f"CPU kernels not built ({reason}); plain torch is used")
        return False
    _say(f"CPU kernels built ({target.name})")
    return True


def _say(line: str) -> None:
    sys.stdout.write(f"tokenizers_vq: {line}\n")
    sys.stdout.flush()


def _compiler() -> str:
    name = os.environ.get("CXX", "g++")
    found = shutil.which(name)
    if os.name != "posix" or not sys.platform.startswith("linux"):
        raise Skipped(f"the kernels are built on Linux only, not {sys.platform}")
    if found is None:
        raise Skipped(f"no compiler {name}")
    return found


def _torch() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise Skipped("torch is not installed where this runs; afterwards: python kernels/build.py")
    folder = Path(next(iter(spec.submodule_search_locations)))
    if not (folder / "include/torch/csrc/stable/library.h").is_file():
        raise Skipped("this torch has no headers of the stable ABI")
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise Skipped((errors or done.stderr.splitlines() or ["the compiler failed"])[0])
    if done.stderr:
        sys.stderr.write(done.stderr)


if __name__ == "__main__":
    sys.exit(0 if attempt(ROOT / MODULE, ROOT / "build" / "kernels") else 1)
