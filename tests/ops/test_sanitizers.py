"""The kernels read and write only what is theirs, and do nothing that C++ leaves undefined."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tokenizers_vq.ops import library
from tokenizers_vq.ops.nearest_code import KERNELS

HERE = Path(__file__).resolve().parent
KERNEL = HERE.parents[1] / "kernels" / "nearest_code"
FLAGS = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-Wno-psabi"]
FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.slow
def test_address_and_undefined_behaviour_sanitizers_are_silent(tmp_path):
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    assert compiler, "this test needs the C++ compiler that builds the kernels"
    sources = [path for path in sorted(KERNEL.glob("*.cpp")) if path.name != "library.cpp"]
    program = tmp_path / "fuzz"
    command = [compiler, *FLAGS, f"-I{KERNEL}", str(HERE / "fuzz_nearest_code.cpp")]
    subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True, timeout=300)
    for isa in KERNELS.names or ("generic",):
        env = os.environ | {library.OVERRIDE: isa}
        done = subprocess.run(
            [str(program), "2500"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, f"{isa}: {done.stdout}{done.stderr}"
