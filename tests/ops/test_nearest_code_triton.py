"""The searches by Triton: run by its interpreter, and compiled for GPUs that are not here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tokenizers_vq.ops import library

ROOT = Path(__file__).resolve().parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Triton has wheels for Linux only")
SEARCHES = """
import torch
from tokenizers_vq import ops
from tokenizers_vq.ops import nearest_code_triton as triton

triton.ROWS, triton.CODES = 16, 32  # an interpreter is slow: two blocks of few rows
torch.manual_seed(0)


def check(name, *inputs):
    mine, its = getattr(triton, name)(*inputs), getattr(ops, name)(*inputs)
    pairs = zip(mine, its) if isinstance(mine, tuple) else [(mine, its)]
    good = all(torch.equal(a, b) for a, b in pairs)
    print(name, *map(lambda t: tuple(t.shape), inputs[:1]), "same" if good else "WRONG")


for rows, size, width in ((17, 70, 9), (2, 170, 40), (1, 1, 1), (0, 3, 2)):
    x, codebook = torch.randn(rows, width), torch.randn(size, width)
    codebook[size // 2] = codebook[-1] = codebook[0]
    x[::5] = codebook[0]
    check("nearest_code", x, codebook)
    check("largest_product", x[:2], 4 * codebook)
x, codebook = torch.randn(2, 4, 5), torch.randn(2, 40, 5)
x[0, 1, 2], x[1, 3, 0] = torch.nan, torch.inf
codebook[0, 0], codebook[0, 33, 3], codebook[1, 5] = torch.inf, -torch.inf, torch.nan
check("nearest_code", x, codebook)
triton.HELD = 20  # fewer rows at a time than there are
check("largest_product", x, codebook)
check("nearest_code", torch.randn(2, 8) + 30, 1e-3 * torch.randn(40, 8) + 30)
x, codebook = torch.randn(6, 8), torch.randn(32, 8)
closer = codebook.clone()
closer[:6] += 1e-4 * (x - closer[:6])  # by less than bfloat16 sees
check("nearest_code", x, torch.cat([codebook, closer]))
lanes = torch.tensor([[1e8, 1, 0, 0, -1e8, 0, 0, 0]])  # 1 in the order of the other forms, else 0
check("largest_product", lanes, lanes.abs())
check("largest_product", 1e20 * torch.randn(2, 8), 1e20 * torch.randn(64, 8))
check("nearest_code", torch.ones(1, 3), torch.zeros(33, 3))
check("nearest_code", torch.randn(1, 3), 1e38 * torch.randn(33, 3))
cancel = [torch.tensor([[1e8]]), torch.tensor([[-1e8]]), torch.arange(3.0)[:, None]]
check("residual_codes", torch.tensor([[1.0], [2.0], [torch.nan]]), cancel)
check("nearest_code", torch.zeros(0, 4, 3), torch.zeros(0, 5, 3))
"""
COMPILED = """
import re
import torch
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tokenizers_vq.ops import nearest_code_triton as searches


def compiled(kernel, types, constants, **options):
    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, types.split(), strict=True)) | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, constants)
    return compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm["ptx"]


has = torch._C._dispatch_has_kernel_for_dispatch_key
names = ("nearest_code", "largest_product", "residual_codes")
print([has(f"tokenizers_vq::{name}", "CUDA") for name in names])
ptx = compiled(searches.filter_codes, "*bf16 *bf16 *fp32 *fp32 i32 i32 i32", dict(N=64, K=64, D=32))
print("products on tensor cores:", "mma.sync" in ptx)
types = "*fp32 *fp32 *fp32 *fp32 *fp32 *i64 i32 i32 i32"
for product in (False, True):
    ptx = compiled(
        searches.refine, types, dict(PRODUCT=product), num_warps=1, enable_fp_fusion=False
    )
    print("rounded apart:", "mul.rn.f64" in ptx and not re.search(r"fma\\S*f64", ptx))
"""


def printed(program: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"TRITON_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@LINUX
def test_the_interpreted_kernels_have_the_answers_of_the_other_forms(tmp_path):
    lines = printed(SEARCHES, tmp_path, TRITON_INTERPRET="1").splitlines()
    assert len(lines) == 18
    assert all(line.endswith(" same") for line in lines), lines


@LINUX
def test_the_searches_are_there_compile_and_round_as_the_cpu_does(tmp_path):
    expected = "[True, True, True]\nproducts on tensor cores: True\n" + "rounded apart: True\n" * 2
    assert printed(COMPILED, tmp_path, TOKENIZERS_VQ_CUDA="triton") == expected


def test_without_triton_the_reason_is_named(monkeypatch):
    monkeypatch.setenv(library.CUDA_OVERRIDE, library.TRITON)
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "tokenizers_vq.ops.nearest_code_triton", raising=False)
    reason = library.load_cuda()
    assert reason.startswith("TOKENIZERS_VQ_CUDA=triton, which does not load: ")
    assert library.active_cuda(reason) == (library.TORCH, reason)
    assert library.active_cuda("")[0] == library.TRITON
