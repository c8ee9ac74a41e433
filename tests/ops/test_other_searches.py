"""Searches of many codebooks at once, of stacks, and for the largest inner product."""

import pytest
import torch

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.functional import nearest
from tokenizers_vq.ops import largest_product, library, nearest_code, residual_codes
from tokenizers_vq.ops.nearest_code import KERNELS


@pytest.fixture(params=("torch", *KERNELS.names))
def ops(request, monkeypatch):
    """Where the searches come from: the torch forms, or the ops with one instruction set."""
    if request.param == "torch":
        return nearest
    monkeypatch.setenv(library.OVERRIDE, request.param)
    return torch.ops.tokenizers_vq


def test_groups_are_searched_each_in_its_own_codebook(ops):
    x, codebooks = torch.randn(5, 30, 12), torch.randn(5, 200, 12)
    for name in ("nearest_code", "largest_product"):
        search = getattr(ops, name)
        for views in (
            (x, codebooks),
            (x.transpose(0, 1).contiguous().transpose(0, 1), codebooks),
            (x, codebooks.mT.contiguous().mT),
            (x[:, ::2], codebooks[:, ::3]),
            (x[:1].expand(5, -1, -1), codebooks[1:2].expand(5, -1, -1)),
        ):
            value, index = search(*views)
            for g in range(5):
                for mine, its in zip(
                    (value[g], index[g]), search(views[0][g], views[1][g]), strict=True
                ):
                    assert torch.equal(mine, its)


def test_no_groups_and_groups_without_rows(ops):
    for shape in ((0, 4, 3), (2, 0, 3)):
        value, index = ops.nearest_code(torch.zeros(shape), torch.zeros(shape[0], 5, 3))
        assert (value.shape, value.dtype) == (shape[:2], torch.float32)
        assert (index.shape, index.dtype) == (shape[:2], torch.int64)


def test_groups_do_not_depend_on_the_number_of_threads():
    x, codebooks = torch.randn(2, 50, 6).round(), torch.randn(2, 90, 6).round()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(nearest_code(x, codebooks))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(("rows", "size", "width"), [(40, 700, 8), (40, 65, 3), (9, 300, 70)])
def test_the_largest_product_is_that_of_float64(ops, rows, size, width):
    for x, codebook in (
        (torch.randn(rows, width), torch.randn(size, width)),
        (torch.randn(rows, width).round(), torch.randn(size, width).round()),
        (torch.randn(rows, width) + 30, torch.randn(size, width) + 30),
        (torch.zeros(rows, width), torch.randn(size, width)),
    ):
        best, where = (x.double()[:, None] * codebook.double()).sum(-1).max(1)
        value, index = ops.largest_product(x, codebook)
        assert torch.equal(index, where)
        torch.testing.assert_close(value, best.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_products_never_choose_what_is_not_finite(ops, bad):
    x, codebook = torch.randn(20, 6), torch.randn(100, 6)
    x[3, 2] = bad
    codebook[0, 5], codebook[70] = bad, bad
    value, index = ops.largest_product(x, codebook)
    finite = codebook.isfinite().all(1)
    products = torch.where(finite, x @ codebook.nan_to_num(0, 0, 0).T, -torch.inf)
    rest = [i for i in range(20) if i != 3]
    assert torch.equal(index[rest], products[rest].argmax(1))
    assert (int(index[3]), float(value[3])) == (0, -torch.inf)
    huge = torch.full((2, 6), 3e38)  # scores overflow: every code is measured
    assert (
        ops.largest_product(huge, codebook)[1].tolist()
        == [int(torch.where(finite, codebook.nan_to_num(0, 0, 0).double().sum(1), -9e9).argmax())]
        * 2
    )


def test_all_forms_of_the_product_agree_to_the_last_bit(monkeypatch):
    x, codebook = torch.randn(60, 37), torch.randn(500, 37)
    expected = nearest.largest_product(x, codebook)
    for isa in KERNELS.names:
        monkeypatch.setenv(library.OVERRIDE, isa)
        found = largest_product(x, codebook)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), isa


def test_a_stack_takes_the_nearest_code_of_what_is_left(ops):
    x = torch.randn(50, 7)
    codebooks = [torch.randn(size, 7) for size in (30, 1, 80, 30)]
    total, columns = torch.zeros_like(x), []
    for codes in codebooks:
        columns.append(torch.cdist(x - total, codes).argmin(1))
        total = total + codes[columns[-1]]
    assert torch.equal(ops.residual_codes(x, codebooks), torch.stack(columns, 1))
    spread = [torch.nn.functional.pad(codes, (1, 2))[:, 1:-2] for codes in codebooks]
    assert torch.equal(ops.residual_codes(x.T.contiguous().T, spread), torch.stack(columns, 1))
    assert ops.residual_codes(x[:0], codebooks).shape == (0, 4)


def test_gradients_with_groups_and_of_products():
    x = torch.randn(3, 10, 4, requires_grad=True)
    codebook = torch.randn(3, 9, 4, requires_grad=True)
    weight = torch.rand(3, 10)
    for search in (nearest_code, largest_product):
        value, index = search(x, codebook)
        mine = torch.autograd.grad((weight * value).sum(), (x, codebook))
        chosen = codebook.gather(1, index[..., None].expand(-1, -1, 4))
        plain = (x * chosen) if search is largest_product else (x - chosen).square()
        theirs = torch.autograd.grad((weight * plain.sum(-1)).sum(), (x, codebook))
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b)


# torch looks at gradients of views that it made itself of inputs with three axes
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_torch_accepts_these_ops():
    x, codebook = torch.randn(2, 6, 3, requires_grad=True), torch.randn(2, 5, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.tokenizers_vq.nearest_code.default, (x, codebook))
    torch.library.opcheck(torch.ops.tokenizers_vq.largest_product.default, (x, codebook))
    tables = [torch.randn(5, 3), torch.randn(7, 3)]
    torch.library.opcheck(torch.ops.tokenizers_vq.residual_codes.default, (x[0].detach(), tables))


def sorted_codes(x, codebook, count):
    distance = (x.double()[:, None] - codebook.double()).square().sum(-1)
    distance = torch.where(distance.isfinite(), distance, torch.inf)
    return distance.argsort(dim=1, stable=True)[:, :count]


@pytest.mark.parametrize("count", [0, 1, 5, 400])
def test_several_nearest_codes_are_those_of_float64(count):
    for scale, offset in ((1, 0), (1e-3, 30), (0, 1)):
        x, codebook = torch.randn(40, 6) * scale + offset, torch.randn(300, 6) * scale + offset
        codebook[[9, 200, 299]] = codebook[4].clone()
        codebook[[0, 150], 2] = torch.tensor([torch.nan, -torch.inf])
        expected = sorted_codes(x, codebook, count)
        for chunk in (1000, nearest.CHUNK):
            assert torch.equal(nearest.nearest_codes(x, codebook, count, chunk), expected)
    x[3, 1] = torch.inf
    assert nearest.nearest_codes(x, codebook, 4)[3].tolist() == [0, 1, 2, 3]
    assert nearest.nearest_codes(x[:0], codebook, 4).shape == (0, 4)


def test_several_nearest_codes_are_one_op_of_a_graph():
    x, codebook = torch.randn(20, 6), torch.randn(30, 6)
    torch.library.opcheck(torch.ops.tokenizers_vq.nearest_codes.default, (x, codebook, 3))
    compiled = torch.compile(nearest.nearest_codes, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, codebook, 3), sorted_codes(x, codebook, 3))


def test_half_precision_is_searched_in_float32():
    x, codebooks = torch.randn(20, 6), [torch.randn(40, 6), torch.randn(30, 6)]
    x, codebooks = x.bfloat16(), [codes.bfloat16() for codes in codebooks]
    with torch.autocast("cpu", torch.bfloat16):
        value, index = largest_product(x, codebooks[0])
        stack = residual_codes(x, codebooks)
    assert value.dtype == torch.float32
    assert torch.equal(index, largest_product(x.float(), codebooks[0].float())[1])
    assert torch.equal(stack, residual_codes(x.float(), [codes.float() for codes in codebooks]))


def test_nonsense_is_refused_in_one_sentence():
    x = torch.zeros(2, 3)
    for call, sentence in (
        (lambda: largest_product(x, torch.zeros(4, 5)),
         "largest_product: expected x (N, d) and codebook (K, d), or (G, N, d) and (G, K, d); got "
         "(2, 3) and (4, 5). Flatten the grid and give both the same width."),
        (lambda: residual_codes(x, []),
         "residual_codes: expected at least one codebook; got none. Give one."),
        (lambda: residual_codes(x[None], [torch.zeros(1, 4, 3)]),
         "residual_codes: expected x (N, d) and codebook (K, d); got (1, 2, 3) and (1, 4, 3). "
         "Flatten the grid and give both the same width."),
        (lambda: residual_codes(x, [torch.zeros(4, 3), torch.zeros(0, 3)]),
         "residual_codes: expected K >= 1 and d >= 1; got (2, 3) and (0, 3). "
         "Give at least one code."),
    ):  # fmt: skip
        with pytest.raises(ShapeError) as error:
            call()
        assert str(error.value) == sentence
