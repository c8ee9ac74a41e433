"""The CUDA search, run on the CPU: no GPU is needed, only g++."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FLAGS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
SANITIZE = (
    "-fsanitize=address"  # sees what compute-sanitizer would: shared memory has its exact size
)


def run(source: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = folder / source.removesuffix(".cpp")
    command = ["g++", *FLAGS, SANITIZE, str(HERE / source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_emulation_reports_wrong_kernels(tmp_path: Path) -> None:
    done = run("emulator.cpp", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_search_equals_float64_under_all_schedules(tmp_path: Path) -> None:
    done = run("driver.cpp", tmp_path, "quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


@pytest.mark.slow
def test_search_equals_float64_on_more_shapes(tmp_path: Path) -> None:
    done = run("driver.cpp", tmp_path, "full")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_every_planted_bug_is_found(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "mutate.py"), str(tmp_path / "table.md")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
