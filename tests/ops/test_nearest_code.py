"""The nearest-code op gives the float64 answer, whatever computes it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.functional import nearest
from tokenizers_vq.ops import code_stats, library, nearest_code
from tokenizers_vq.ops.nearest_code import KERNELS, _refuse_outside

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("torch", *KERNELS.names)


@pytest.fixture(params=BACKENDS)
def search(request, monkeypatch):
    """One form of the search: the torch form, or the op pinned to one instruction set."""
    if request.param == "torch":
        return nearest.nearest_code
    monkeypatch.setenv(library.OVERRIDE, request.param)
    return nearest_code


def exact(x, codebook):
    """The definition: float64 distances of all pairs, lowest index on ties."""
    rows = [(part.double()[:, None] - codebook.double()).square().sum(-1) for part in x.split(16)]
    return torch.cat(rows).min(1)


def sphere(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


def clustered(rows, size, width):
    centres = torch.randn(size // 128, width).repeat(128, 1)
    codes = centres + 1e-3 * torch.randn(size, width)
    return codes[torch.randint(size, (rows,))] + 1e-3 * torch.randn(rows, width), codes


def duplicated(rows, size, width):
    codes = torch.randn(size // 4, width).repeat(4, 1)
    return torch.randn(rows, width), codes


DATA = {  # what goes wrong elsewhere: rounding of large norms, of half precision, ties
    "normal_8": lambda: (torch.randn(96, 8), torch.randn(4096, 8)),
    "normal_256": lambda: (torch.randn(48, 256), torch.randn(1024, 256)),
    "sphere": lambda: (sphere(64, 32), sphere(2048, 32)),
    "offset": lambda: (torch.randn(64, 64) + 30, torch.randn(1024, 64) + 30),
    "tiny_codebook": lambda: (torch.randn(32, 256), (torch.rand(2048, 256) * 2 - 1) / 2048),
    "clustered": lambda: clustered(96, 2048, 16),
    "duplicated": lambda: duplicated(96, 2048, 12),
    "zero_codebook": lambda: (torch.randn(64, 16), torch.zeros(1500, 16)),
    "integers": lambda: (
        torch.randint(-3, 4, (128, 5)).float() / 2, torch.randint(-2, 3, (700, 5)).float()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_the_answer_is_that_of_float64(search, name):
    x, codebook = DATA[name]()
    distance, index = search(x, codebook)
    best, where = exact(x, codebook)
    assert torch.equal(index, where)
    torch.testing.assert_close(distance, best.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", DATA)
def test_all_forms_agree_to_the_last_bit(name, monkeypatch):
    x, codebook = DATA[name]()
    expected = nearest.nearest_code(x, codebook)
    for isa in KERNELS.names:
        monkeypatch.setenv(library.OVERRIDE, isa)
        for mine, theirs in zip(nearest_code(x, codebook), expected, strict=True):
            assert torch.equal(mine, theirs), isa


def fuzz(search, count, seed):
    generator = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high, (), generator=generator))

    for _ in range(count):
        rows, size, width = number(0, 40), number(1, 300), number(1, 70)
        x = torch.randn(rows, width, generator=generator)
        codebook = torch.randn(size, width, generator=generator)
        if number(0, 2):  # coarse values: many exact ties
            x, codebook = x.round(), codebook.round()
        scale = 2.0 ** number(-70, 62)  # exact: ties stay ties
        x, codebook = x * scale, codebook * scale
        expected = exact(x, codebook)[1] if rows else torch.zeros(0, dtype=torch.int64)
        assert torch.equal(search(x, codebook)[1], expected), (rows, size, width, scale)


def test_fuzzed_shapes_and_scales(search):
    fuzz(search, 60, 0)


def test_coarse_products_are_refined_too():
    x, codebook = torch.randn(64, 40) + 3, torch.randn(500, 40) + 3
    expected = exact(x, codebook)[1]
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(nearest.nearest_code(x, codebook)[1], expected)
    finally:
        torch.set_float32_matmul_precision(precision)


@pytest.mark.slow
def test_many_fuzzed_shapes_and_scales(search):
    fuzz(search, 10_000, 1)


def test_equal_distances_give_the_lowest_index(search):
    codebook = torch.randn(7, 5)[torch.arange(7000) % 7]
    assert search(codebook[:7], codebook)[1].tolist() == list(range(7))


@pytest.mark.parametrize("dead", [slice(None), slice(40, None), slice(None, None, 3)])
def test_collapsed_codebooks_are_searched_as_exactly_as_others(search, dead):
    x, codebook = torch.randn(50, 9), torch.randn(700, 9)
    for value in (0.0, codebook[0].clone()):
        codebook[dead] = value
        assert torch.equal(search(x, codebook)[1], exact(x, codebook)[1])


def test_no_rows_one_code_one_column(search):
    distance, index = search(torch.zeros(0, 3), torch.randn(4, 3))
    assert (distance.shape, distance.dtype) == ((0,), torch.float32)
    assert (index.shape, index.dtype) == ((0,), torch.int64)
    assert search(torch.randn(9, 3), torch.randn(1, 3))[1].tolist() == [0] * 9
    x, codebook = torch.randn(50, 1), torch.randn(77, 1)
    assert torch.equal(search(x, codebook)[1], exact(x, codebook)[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_chosen_and_gets_index_zero(search, bad):
    x, codebook = torch.randn(40, 6), torch.randn(300, 6)
    x[3, 2], x[17] = bad, bad
    codebook[0, 5], codebook[129] = bad, bad
    distance, index = search(x, codebook)
    rest = [i for i in range(40) if i not in (3, 17)]
    finite = torch.where(codebook.isfinite().all(1, keepdim=True), codebook, 1e6)
    assert torch.equal(index[rest], exact(x[rest], finite)[1])
    assert index[[3, 17]].tolist() == [0, 0]
    assert distance[[3, 17]].tolist() == [float("inf")] * 2
    assert search(x[rest], codebook[[0, 129]])[1].tolist() == [0] * 38


def test_numbers_at_the_ends_of_float32(search):
    x = torch.tensor([[3e38, -3e38], [1e-40, 0.0], [-1e-44, 3e38], [0.0, 0.0]])
    codebook = torch.tensor([[1e38, 0.0], [1e-40, 1e-42], [0.0, 3.4e38], [0.0, 1e-45], [0, -3e38]])
    assert torch.equal(search(x, codebook)[1], exact(x, codebook)[1])
    assert torch.equal(search(x[1:2] * 1, codebook[[3, 1]])[1], torch.tensor([1]))


def test_codes_too_far_from_their_mean_to_subtract_it(search):
    codebook = torch.tensor([[3e38, 0.0, 1.0]] * 3 + [[-3e38, 0.0, 1.0], [-3.2e38, 2.0, 1.0]])
    x = torch.cat([codebook, codebook / 2, -codebook, torch.zeros(1, 3)])
    assert torch.equal(search(x, codebook)[1], exact(x, codebook)[1])


def test_layout_in_memory_does_not_matter(search):
    x, codebook = torch.randn(65, 12), torch.randn(333, 12)
    expected = search(x, codebook)
    for wide_x, wide_codes in (
        (F.pad(x, (3, 2))[:, 3:-2], F.pad(codebook, (1, 6))[:, 1:-6]),
        (x.T.contiguous().T, codebook.T.contiguous().T),
        (x.repeat_interleave(2, 0)[::2], codebook.repeat_interleave(3, 0)[::3]),
    ):
        for mine, theirs in zip(search(wide_x, wide_codes), expected, strict=True):
            assert torch.equal(mine, theirs)
    one = x[:1].expand(9, -1)
    assert search(one, codebook)[1].tolist() == [int(expected[1][0])] * 9


def test_the_number_of_threads_does_not_matter(search):
    x, codebook = torch.randn(2000, 6).round(), torch.randn(500, 6).round()
    index = torch.randint(500, (2000,))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append((*search(x, codebook), *code_stats(x / 3, index, 500)))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


def test_chunks_of_the_torch_form_do_not_matter():
    x, codebook = torch.randn(100, 5), torch.randn(33, 5)
    whole = nearest.nearest_code(x, codebook)
    for chunk in (1, 40, 33 * 7):
        for mine, theirs in zip(nearest.nearest_code(x, codebook, chunk), whole, strict=True):
            assert torch.equal(mine, theirs)


def test_gradients_flow_through_the_distance():
    x = torch.randn(20, 4, requires_grad=True)
    codebook = torch.randn(9, 4, requires_grad=True)
    weight = torch.rand(20)
    distance, index = nearest_code(x, codebook)
    assert not index.requires_grad
    mine = torch.autograd.grad((weight * distance).sum(), (x, codebook))
    plain = (weight * (x - codebook[index]).square().sum(-1)).sum()
    for a, b in zip(mine, torch.autograd.grad(plain, (x, codebook)), strict=True):
        torch.testing.assert_close(a, b)


def test_half_precision_and_autocast_are_searched_in_float32():
    x, codebook = torch.randn(200, 8).bfloat16(), torch.randn(64, 8)
    expected = nearest_code(x.float(), codebook)[1]
    assert torch.equal(nearest_code(x, codebook)[1], expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        op = torch.ops.tokenizers_vq.nearest_code
        assert torch.equal(op(x, codebook)[1], expected)


# opcheck reads .grad of tensors that it made itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_torch_accepts_the_ops():
    x = torch.randn(6, 3, requires_grad=True)
    codebook = torch.randn(5, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.tokenizers_vq.nearest_code.default, (x, codebook))
    stats = torch.ops.tokenizers_vq.code_stats.default
    torch.library.opcheck(stats, (torch.randn(6, 3), torch.randint(5, (6,)), 5))


def test_it_compiles_whole_and_exports_with_any_number_of_rows():
    class Model(torch.nn.Module):
        def forward(self, x, codebook):
            distance, index = nearest_code(x * 2, codebook)
            return distance.sum(), index

    torch._dynamo.reset()
    x, codebook = torch.randn(20, 3), torch.randn(90, 3)
    compiled = torch.compile(Model(), fullgraph=True, backend="eager", dynamic=True)
    rows = torch.export.Dim("rows", min=1, max=512)
    exported = torch.export.export(Model(), (x, codebook), dynamic_shapes=({0: rows}, None))
    for count in (20, 7):
        expected = Model()(x[:count], codebook)[1]
        assert torch.equal(compiled(x[:count], codebook)[1], expected)
        assert torch.equal(exported.module()(x[:count], codebook)[1], expected)


def test_stats_count_and_add():
    x, index = torch.randn(300, 7), torch.randint(20, (300,))
    index[index == 4] = 5  # a code that nobody chose
    counts, sums = code_stats(x.T.contiguous().T, index, 20)
    chosen = F.one_hot(index, 20)
    assert torch.equal(counts, chosen.sum(0).float())
    torch.testing.assert_close(sums, chosen.float().T @ x)
    for mine, theirs in zip(nearest.code_stats(x, index, 20), (counts, sums), strict=True):
        assert torch.equal(mine, theirs)
    counts, sums = code_stats(x[:0], index[:0], 3)
    assert counts.tolist() == [0] * 3
    assert sums.shape == (3, 7)


@pytest.mark.parametrize(
    ("x", "codebook", "sentence"),
    [
        (torch.zeros(2, 3), torch.zeros(4, 5), "expected x (N, d) and codebook (K, d), or "
         "(G, N, d) and (G, K, d); got (2, 3) and (4, 5). Flatten the grid and give both "
         "the same width."),
        (torch.zeros(3), torch.zeros(4, 3), "expected x (N, d) and codebook (K, d), or "
         "(G, N, d) and (G, K, d); got (3,) and (4, 3). Flatten the grid and give both "
         "the same width."),
        (torch.zeros(2, 5, 3), torch.zeros(3, 4, 3), "expected x (N, d) and codebook (K, d), or "
         "(G, N, d) and (G, K, d); got (2, 5, 3) and (3, 4, 3). Flatten the grid and give both "
         "the same width."),
        (torch.zeros(2, 3), torch.zeros(0, 3), "expected K >= 1 and d >= 1; got (2, 3) and "
         "(0, 3). Give at least one code."),
        (torch.zeros(2, 0), torch.zeros(3, 0), "expected K >= 1 and d >= 1; got (2, 0) and "
         "(3, 0). Give at least one code."),
        (torch.zeros(2, 3).long(), torch.zeros(4, 3), "expected real numbers; got torch.int64 "
         "and torch.float32. Call .float()."),
        (torch.zeros(2, 3), torch.zeros(4, 3, device="meta"), "expected one device; got cpu and "
         "meta. Move one to the other."),
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_one_sentence(x, codebook, sentence):
    with pytest.raises(ShapeError) as error:
        nearest_code(x, codebook)
    assert str(error.value) == f"nearest_code: {sentence}"


def test_stats_refuse_nonsense():
    with pytest.raises(ShapeError) as error:
        code_stats(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), 4)
    assert str(error.value) == (
        "code_stats: expected x (N, d) and int64 index (N,); got (2, 3) and torch.int64 (3,). "
        "Flatten both first."
    )
    with pytest.raises(ShapeError) as error:
        code_stats(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64, device="meta"), 4)
    assert str(error.value) == (
        "code_stats: expected one device; got cpu and meta. Move one to the other."
    )
    with pytest.raises(RuntimeError):
        code_stats(torch.zeros(1, 3), torch.tensor([4]), 4)


@pytest.mark.parametrize("outside", [-1, 4])
def test_stats_on_a_gpu_refuse_what_is_outside_too(outside):
    _refuse_outside(torch.tensor([0, 3]), 4)
    _refuse_outside(torch.tensor([], dtype=torch.int64), 4)
    with pytest.raises(RuntimeError, match=r"code_stats: expected indices in 0\.\.3"):
        _refuse_outside(torch.tensor([0, outside]), 4)


def test_the_command_says_what_is_active_and_why():
    env = os.environ | {library.OVERRIDE: "torch"}
    command = [sys.executable, "-m", "tokenizers_vq.ops"]
    printed = subprocess.check_output(command, cwd=ROOT, env=env, text=True, timeout=120)
    assert printed.startswith("nearest_code, cpu: torch (TOKENIZERS_VQ_ISA=torch)")


def test_the_kernel_that_runs_is_named_with_its_reason(monkeypatch):
    kernels = library.Kernels(("generic", "avx2"), "avx2", "")
    monkeypatch.delenv(library.OVERRIDE, raising=False)
    assert library.active(kernels) == ("avx2", "usually the fastest on this CPU")
    monkeypatch.setenv(library.OVERRIDE, "generic")
    assert library.active(kernels) == ("generic", "TOKENIZERS_VQ_ISA=generic")
    monkeypatch.setenv(library.OVERRIDE, "avx512")
    assert library.active(kernels) == (
        "avx2", "TOKENIZERS_VQ_ISA=avx512 is not one of torch, generic, avx2 here",
    )  # fmt: skip
    assert library.active(library.Kernels((), "torch", "why")) == ("torch", "why")
