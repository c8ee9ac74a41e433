"""Compile the kernels with the C++ compiler at hand: ``python kernels/build.py``.

Needs g++ (or ``CXX``), Python's headers and an installed torch, whose headers and libraries it
uses; downloads nothing. Without them the package works in plain torch, and one line says so.
With nvcc, and a torch for CUDA, the CUDA kernels become a second library, for the architectures in
``TOKENIZERS_VQ_CUDA_ARCHES``. Set ``TOKENIZERS_VQ_REQUIRE=cpu`` or ``cpu,cuda`` to make a missing
part an error.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "kernels").glob("*/*.cpp"))
MODULE = Path("tokenizers_vq/ops/_C.abi3.so")
CUDA = ROOT / "kernels/nearest_code/cuda"
CUDA_MODULE = Path("tokenizers_vq/ops/_C_cuda.abi3.so")
ARCHES = "80 90"  # machine code, which 8.6 and 8.9 run, too; newer ones compile PTX of the last
FLAGS = [
    "-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi",
    "-Wno-maybe-uninitialized",  # GCC's own AVX-512 headers
    "-ffp-contract=off",  # the deciding sums round the same on every machine
    "-DTORCH_TARGET_VERSION=0x020a000000000000",  # the stable ABI of torch 2.10 and later
    "-DPy_LIMITED_API=0x030a0000",
]  # fmt: skip

# of sources in these folders: here a sum may round once less where the machine can
MORE_FLAGS = {"selective_scan": ["-ffp-contract=fast"]}


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
    flags = [*FLAGS, *_includes(torch)]
    more = {source: MORE_FLAGS.get(source.parent.name, []) for source in SOURCES}
    work.mkdir(parents=True, exist_ok=True)
    objects = [work / f"{source.parent.name}_{source.stem}.o" for source in SOURCES]
    commands = [
        [compiler, *flags, *more[source], "-c", str(source), "-o", str(obj)]
        for source, obj in zip(SOURCES, objects, strict=True)
    ]
    # torch is loaded privately by Python, so the library has to name what it needs itself.
    link = [compiler, "-shared", *map(str, objects), f"-L{torch / 'lib'}", "-ltorch_cpu"]
    _produce(commands, link, target, work)


def build_cuda(target: Path, work: Path) -> None:
    """Compile and link the CUDA kernels and their binding into the shared library ``target``.

    Args:
        target: the file to write.
        work: a folder for object files, made if missing.

    Raises:
        Skipped: nvcc or what ``build`` needs is missing, torch has no CUDA, or a compiler failed.
    """
    compiler, torch = _compiler(), _torch()
    nvcc = _nvcc()
    if not (torch / "lib/libtorch_cuda.so").is_file():
        raise Skipped("this torch has no CUDA")
    arches = os.environ.get("TOKENIZERS_VQ_CUDA_ARCHES", ARCHES).split()
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in arches]
    codes.append(f"-gencode=arch=compute_{arches[-1]},code=compute_{arches[-1]}")
    work.mkdir(parents=True, exist_ok=True)
    kernels, binding = work / "cuda_kernels.o", work / "cuda_library.o"
    commands = [
        [nvcc, "-std=c++17", "-O3", "-ccbin", compiler, "-Xcompiler", "-fPIC,-fvisibility=hidden",
         *codes, "-c", str(CUDA / "nearest_code.cu"), "-o", str(kernels)],
        [compiler, *FLAGS, *_includes(torch), "-DUSE_CUDA", "-c", str(CUDA / "library.cpp"), "-o",
         str(binding)],
    ]  # fmt: skip
    link = [compiler, "-shared", str(kernels), str(binding), *_cuda_runtime(nvcc)]
    link += [f"-L{torch / 'lib'}", "-ltorch_cpu", "-ltorch_cuda", "-Wl,--allow-shlib-undefined"]
    _produce(commands, link, target, work)


def attempt(target: Path, work: Path, part: str = "cpu") -> bool:
    """Build, say in one line what came of it, and return whether there is a library.

    Args:
        target: the file to write.
        work: a folder for object files, made if missing.
        part: ``cpu`` or ``cuda``.

    Raises:
        SystemExit: nothing was compiled although ``TOKENIZERS_VQ_REQUIRE`` names the part.
    """
    kernels = f"{part.upper()} kernels"
    try:
        (build if part == "cpu" else build_cuda)(target, work)
    except Skipped as reason:
        if part in os.environ.get("TOKENIZERS_VQ_REQUIRE", "").split(","):
            raise SystemExit(f"tokenizers_vq: {kernels} required but not built: {reason}") from None
        _say(f"{kernels} not built ({reason}); plain torch is used")
        return False
    _say(f"{kernels} built ({target.name})")
    return True


def _produce(commands: list[list[str]], link: list[str], target: Path, work: Path) -> None:
    """Run all commands at once, then link; ``target`` is replaced when that is done."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    target.parent.mkdir(parents=True, exist_ok=True)
    linked = work / target.name
    _run([*link, "-o", str(linked)])
    linked.replace(target)


def _includes(torch: Path) -> list[str]:
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").is_file():
        raise Skipped("Python's headers are not installed")
    return ["-isystem", str(torch / "include"), "-isystem", include]


def _nvcc() -> str:
    home = os.environ.get("CUDA_HOME")
    found = shutil.which(str(Path(home, "bin/nvcc")) if home else "nvcc")
    if found is None:
        raise Skipped("no nvcc" + (f" in {home}" if home else ""))
    return found


def _cuda_runtime(nvcc: str) -> list[str]:
    """Return what links the runtime statically. nvcc itself knows best where its toolkit is."""
    told = subprocess.run(
        [nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True, check=False
    )
    top = re.search(r"TOP=(\S+)", told.stderr)
    folders = (
        [Path(top.group(1)) / name for name in ("lib64", "lib", "targets/x86_64-linux/lib")]
        if top
        else []
    )
    for folder in folders:
        if (folder / "libcudart_static.a").is_file():
            return [f"-L{folder}", "-lcudart_static", "-lrt", "-lpthread", "-ldl"]
    raise Skipped("the CUDA toolkit has no static runtime")


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
    built = attempt(ROOT / MODULE, ROOT / "build" / "kernels")
    attempt(ROOT / CUDA_MODULE, ROOT / "build" / "kernels", "cuda")
    sys.exit(0 if built else 1)
