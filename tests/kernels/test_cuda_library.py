"""The binding of the CUDA kernels, run on CPU tensors; and that nvcc, where it is, builds it."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from tokenizers_vq import ops
from tokenizers_vq.functional import nearest
from tokenizers_vq.ops import library

ROOT = Path(__file__).resolve().parents[2]
CUDA = ROOT / "kernels/nearest_code/cuda"
TORCH = Path(torch.__file__).parent
sys.path.insert(0, str(ROOT / "kernels"))
import build as kernels  # noqa: E402  # kernels/build.py is a script beside the package


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The ops of the CUDA library, compiled by g++ and registered for the CPU."""
    target = tmp_path_factory.mktemp("emulated") / "emulated.so"
    flags = [flag for flag in kernels.FLAGS if flag != "-O3"]
    command = ["g++", *flags, "-O1", "-Wno-unknown-pragmas", "-DTOKENIZERS_VQ_EMULATED"]
    command += ["-isystem", str(TORCH / "include"), "-isystem", sysconfig.get_path("include")]
    command += ["-shared", str(CUDA / "library.cpp"), "-x", "c++", str(CUDA / "nearest_code.cu")]
    command += ["-o", str(target), f"-L{TORCH / 'lib'}", "-ltorch_cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    torch.ops.load_library(str(target))
    return torch.ops.tokenizers_vq_emulated


def agree(mine, theirs):
    return all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


# More rows than the binding takes at once; many codes, split among blocks; many channels.
SHAPES = [(70, 300, 9), (5, 1100, 3), (0, 3, 2), (1, 1, 1), (20, 200, 70), (9, 130, 300)]


@pytest.mark.parametrize("filtered", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "size", "width"), SHAPES)
def test_the_search_has_the_bits_of_the_torch_form(
    emulated, monkeypatch, rows, size, width, filtered
):
    monkeypatch.setenv(library.CUDA_OVERRIDE, filtered)
    x, codebook = torch.randn(rows, width), torch.randn(size, width)
    codebook[size // 2] = codebook[0]
    x[::3] = codebook[0]
    assert agree(emulated.nearest_code(x, codebook), nearest.nearest_code(x, codebook))


def test_groups_and_layouts_are_searched_as_they_are(emulated):
    x, codebook = torch.randn(3, 60, 5), torch.randn(3, 40, 5)
    expected = nearest.nearest_code(x, codebook)
    assert agree(emulated.nearest_code(x, codebook), expected)
    wide = torch.zeros(60, 3, 7)
    wide[..., 1:6] = x.transpose(0, 1)
    assert agree(emulated.nearest_code(wide[..., 1:6].transpose(0, 1), codebook), expected)
    columns = codebook[0].T.contiguous().T
    first = tuple(part[0] for part in expected)
    assert agree(emulated.nearest_code(x[0].T.contiguous().T, columns), first)


@pytest.mark.parametrize("filtered", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "size", "width"), SHAPES)
def test_products_have_the_bits_of_the_cpu(emulated, monkeypatch, rows, size, width, filtered):
    monkeypatch.setenv(library.CUDA_OVERRIDE, filtered)
    x, codebook = torch.randn(rows, width), torch.randn(size, width)
    codebook[size // 2] = codebook[0] = 4 * codebook[0]
    x[::3] = codebook[0]
    assert agree(emulated.largest_product(x, codebook), ops.largest_product(x, codebook))


def test_products_of_groups_never_choose_what_is_not_finite(emulated):
    x, codebook = torch.randn(2, 20, 6), torch.randn(2, 140, 6)
    x[0, 3, 2], x[1, 4, 0] = torch.nan, torch.inf
    codebook[0, 0], codebook[0, 70, 3], codebook[1, 5] = torch.inf, -torch.inf, torch.nan
    value, index = emulated.largest_product(x, codebook)
    assert agree((value, index), ops.largest_product(x, codebook))
    assert value[0, 3] == value[1, 4] == -torch.inf
    assert index[0, 3] == index[1, 4] == 0


@pytest.mark.parametrize("filtered", ["float32", "bfloat16"])
def test_stacks_have_the_codes_of_the_cpu(emulated, monkeypatch, filtered):
    monkeypatch.setenv(library.CUDA_OVERRIDE, filtered)
    for rows, width in ((70, 9), (3, 260), (0, 4)):  # the first: more rows than are taken at once
        wide = torch.randn(rows, width + 2)
        x, books = wide[:, 1:-1], [torch.randn(k, width) / k for k in (150, 1, 30)]
        books[1] = books[1].T.contiguous().T
        assert torch.equal(emulated.residual_codes(x, books), ops.residual_codes(x, books))
    x = torch.tensor([[1.0], [2.0], [torch.nan], [torch.inf]])
    cancel = [torch.tensor([[1e8]]), torch.tensor([[-1e8]]), torch.arange(3.0)[:, None]]
    # x - (1e8 - 1e8) is x, but in float32 x - 1e8 + 1e8 is 0
    codes = [[0, 0, 1], [0, 0, 2], [0, 0, 0], [0, 0, 0]]
    assert emulated.residual_codes(x, cancel).tolist() == codes
    with pytest.raises(RuntimeError, match="residual_codes: expected"):
        emulated.residual_codes(x, [])
    with pytest.raises(RuntimeError, match="residual_codes: expected"):
        emulated.residual_codes(x, [cancel[0], torch.zeros(2, 2)])


def test_stats_add_rows_in_their_order(emulated):
    x, index = torch.randn(300, 7) * 1e3, torch.randint(20, (300,))
    index[index == 4] = 5  # a code that nobody chose, and one of many
    assert agree(emulated.code_stats(x, index, 20), nearest.code_stats(x, index, 20))
    assert agree(
        emulated.code_stats(x.T.contiguous().T, index, 20), nearest.code_stats(x, index, 20)
    )
    counts, sums = emulated.code_stats(x[:0], index[:0], 3)
    assert counts.tolist() == [0] * 3
    assert torch.equal(sums, torch.zeros(3, 7))


@pytest.mark.parametrize(
    ("x", "codebook"),
    [
        (torch.zeros(2, 3), torch.zeros(4, 5)),
        (torch.zeros(3), torch.zeros(4, 3)),
        (torch.zeros(2, 3), torch.zeros(0, 3)),
        (torch.zeros(2, 3).double(), torch.zeros(4, 3).double()),
        (torch.zeros(2, 2, 3), torch.zeros(3, 4, 3)),
    ],
)
def test_nonsense_is_refused(emulated, x, codebook):
    with pytest.raises(RuntimeError, match="nearest_code: expected"):
        emulated.nearest_code(x, codebook)
    with pytest.raises(RuntimeError, match="largest_product: expected"):
        emulated.largest_product(x, codebook)
    with pytest.raises(RuntimeError, match="code_stats: expected"):
        emulated.code_stats(x, torch.zeros(7, dtype=torch.int64), 4)


def test_what_runs_on_a_gpu_is_named_with_its_reason(monkeypatch):
    monkeypatch.setenv(library.CUDA_OVERRIDE, "torch")
    assert library.load_cuda() == "TOKENIZERS_VQ_CUDA=torch"
    assert library.active_cuda("why") == ("torch", "why")
    assert library.active_cuda("")[0] == "bfloat16"
    monkeypatch.setenv(library.CUDA_OVERRIDE, "float32")
    assert library.active_cuda("")[0] == "float32"


def test_without_nvcc_the_cuda_part_is_left_out_or_required(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    target = tmp_path / "_C_cuda.abi3.so"
    assert not kernels.attempt(target, tmp_path, "cuda")
    line = f"CUDA kernels not built (no nvcc in {tmp_path}); plain torch is used"
    assert capsys.readouterr().out == f"tokenizers_vq: {line}\n"
    monkeypatch.setenv("TOKENIZERS_VQ_REQUIRE", "cpu,cuda")
    with pytest.raises(SystemExit, match="CUDA kernels required but not built: no nvcc"):
        kernels.attempt(target, tmp_path, "cuda")


@pytest.mark.slow
def test_nvcc_builds_a_library_that_serves_cuda_tensors(tmp_path, monkeypatch):
    if shutil.which("nvcc") is None:
        return  # the test above says what happens then
    monkeypatch.setenv("TOKENIZERS_VQ_CUDA_ARCHES", "80")
    target = tmp_path / "_C_cuda.abi3.so"
    assert kernels.attempt(target, tmp_path / "work", "cuda")
    program = (
        "import torch, tokenizers_vq.ops\n"
        f"torch.ops.load_library({str(target)!r})\n"
        "has = torch._C._dispatch_has_kernel_for_dispatch_key\n"
        "ops = ('nearest_code', 'largest_product', 'residual_codes', 'code_stats')\n"
        "print([has(f'tokenizers_vq::{op}', 'CUDA') for op in ops])\n"
    )
    env = os.environ | {library.CUDA_OVERRIDE: "torch"}
    printed = subprocess.check_output(
        [sys.executable, "-c", program], cwd=ROOT, env=env, text=True, timeout=300
    )
    assert printed == "[True, True, True, True]\n"
