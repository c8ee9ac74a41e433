"""The searches by Triton, for GPUs without a compiled library: ``TOKENIZERS_VQ_CUDA=triton``.

Filter and refine as everywhere. Products of bfloat16 leave the smallest score of every 32 codes;
where that lies within the rounding bound of the row's smallest, all 32 are measured in float64,
added in the order of the other forms. Nothing waits for the device. No GPU has run it yet.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.functional import nearest

PART = tl.constexpr(32)  # codes that share a minimum
ROWS, CODES, DEPTH = 128, 128, 32  # of a step of the filter
HELD = 2**24  # minima, or numbers of rows, at a time
UNIT = 2.0**-22  # tensor cores cut sums off: up to two units in the last place, not half of one
# Triton's interpreter cannot multiply bfloat16: it gets the rounded numbers as float32.
FACTORS = torch.float32 if triton.knobs.runtime.interpret else torch.bfloat16


@triton.jit
def filter_codes(
    x, codes, start, minima, rows, size, width, N: tl.constexpr, K: tl.constexpr, D: tl.constexpr
):
    """Write the smallest of the scores ``start - x . c`` of every PART codes, for N rows."""
    blocks, parts = tl.cdiv(rows, N), tl.cdiv(size, PART)
    group = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * N + tl.arange(0, N)
    at, real = group * rows + row, (row < rows)[:, None]
    for first in range(0, size, K):
        code = first + tl.arange(0, K)
        table = codes + (group * size + code) * width
        total = tl.zeros((N, K), tl.float32)
        for channel in range(0, width, D):
            d = channel + tl.arange(0, D)
            a = tl.load(x + at[:, None] * width + d, real, 0.0)
            b = tl.load(table + d[:, None], code < size, 0.0)
            total = tl.dot(a, b, total, input_precision="ieee")
        score = tl.load(start + group * size + code, code < size, float("inf")) - total
        part = first // PART + tl.arange(0, K // PART)
        least = tl.min(tl.reshape(score, (N, K // PART, PART)), 2)
        tl.store(minima + at[:, None] * parts + part, least, real & (part < parts))


@triton.jit
def refine(x, codes, minima, limit, value, index, rows, size, width, PRODUCT: tl.constexpr):
    """Measure, for one row, all codes whose minimum is within the limit; keep the first best."""
    at, parts = tl.program_id(0).to(tl.int64), tl.cdiv(size, PART)
    group, within = at // rows, tl.load(limit + at)
    best, chosen = tl.full((), float("inf"), tl.float64), tl.full((), 0, tl.int32)
    for part in range(parts):
        if (tl.load(minima + at * parts + part) > within) == 0:  # NaN leaves nothing out
            code = part * PART + tl.arange(0, PART)
            table = codes + (group * size + code)[:, None] * width
            lanes = tl.zeros((PART, 8), tl.float64)
            for channel in range(0, width, 8):
                d = channel + tl.arange(0, 8)
                a = tl.load(x + at * width + d, d < width, 0.0).to(tl.float64)
                b = tl.load(table + d, (code < size)[:, None] & (d < width), 0.0).to(tl.float64)
                lanes += -a * b if PRODUCT else (a - b) * (a - b)
            # The order of all forms: lanes 0 to 3 and 4 to 7, then 0, 1 and 2, 3, then both.
            low, high = tl.split(tl.permute(tl.reshape(lanes, (PART, 2, 4)), (0, 2, 1)))
            low, high = tl.split(tl.permute(tl.reshape(low + high, (PART, 2, 2)), (0, 2, 1)))
            low, high = tl.split(low + high)
            found = low + high
            found = tl.where((code < size) & (tl.abs(found) < float("inf")), found, float("inf"))
            least = tl.min(found, 0)
            first = tl.min(tl.where(found == least, code, size), 0)
            chosen = tl.where(least < best, first, chosen)
            best = tl.where(least < best, least, best)
    tl.store(value + at, best.to(tl.float32))
    tl.store(index + at, chosen.to(tl.int64))


def register() -> None:
    """Let the searches of CUDA tensors run here."""
    for form in (nearest_code, largest_product, residual_codes):
        torch.library.impl(f"tokenizers_vq::{form.__name__}", "CUDA", form)


def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distances and indices of ``(N, d)`` or ``(G, N, d)``."""
    return _search(x, codebook, product=False)


def largest_product(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest inner products and their indices of ``(N, d)`` or ``(G, N, d)``."""
    negated, index = _search(x, codebook, product=True)
    return -negated, index


def residual_codes(x: Tensor, codebooks: list[Tensor]) -> Tensor:
    """Return the indices ``(N, M)`` of a stack of codebooks."""
    return nearest.residual_codes(x, codebooks, nearest_code)


def _search(x: Tensor, codebook: Tensor, *, product: bool) -> tuple[Tensor, Tensor]:
    rows, codes = (x, codebook) if x.ndim == 3 else (x[None], codebook[None])
    value = x.new_empty(rows.shape[:2])
    index = torch.empty_like(value, dtype=torch.int64)
    each = max(codes.shape[1] // PART.value, x.shape[-1]) * max(codes.shape[0], 1)
    step = max(1, HELD // each)
    for start in range(0, rows.shape[1] if rows.shape[0] else 0, step):
        part = slice(start, start + step)
        value[:, part], index[:, part] = _search_some(
            rows[:, part].contiguous(), codes.contiguous(), product=product
        )
    return value.view(x.shape[:-1]), index.view(x.shape[:-1])


def _search_some(x: Tensor, codes: Tensor, *, product: bool) -> tuple[Tensor, Tensor]:
    (groups, rows, width), size = x.shape, codes.shape[1]
    usable = codes.isfinite().all(-1)
    clean = torch.where(usable[..., None], codes, 0.0).double()
    # Distances are the same seen from any centre; coarse numbers near zero lose least.
    centre = torch.zeros_like(clean[:, :1]) if product else clean.mean(1, keepdim=True)
    clean = torch.where(usable[..., None], clean - centre, 0.0)
    half = torch.zeros_like(clean[..., 0]) if product else clean.square().sum(-1) / 2
    table, _, lost = _rounded(clean)
    moved, length, missed = _rounded(x.double() - centre)
    longest, worst = (v.amax(1, keepdim=True) for v in (clean.norm(dim=-1), lost))
    # The bound of kernels/nearest_code/cuda/filter.cuh; the last part is what float64 may err by.
    scale = half.amax(1, keepdim=True) + length * (longest + worst)
    error = missed * longest + length * worst + (width + 16) * UNIT * scale + width * 1e-37
    measured = length * longest if product else (length + missed + longest).square()
    slack = 2.02 * error + width * 4.5e-16 * measured
    slack = torch.where(scale < torch.finfo(torch.float32).max / 8, slack, torch.inf).float()

    minima = x.new_empty(groups, rows, triton.cdiv(size, PART.value))
    value, index = x.new_empty(groups, rows), x.new_empty(groups, rows, dtype=torch.int64)
    start = torch.where(usable, half, torch.inf).float()
    with torch.cuda.device_of(x):
        grid = (groups * triton.cdiv(rows, ROWS),)
        filter_codes[grid](
            moved, table, start, minima, rows, size, table.shape[-1],
            N=ROWS, K=CODES, D=DEPTH, num_warps=8,
        )  # fmt: skip
        limit = minima.amin(2) + slack
        # Products and sums round apart, as everywhere.
        refine[(groups * rows,)](
            x, codes, minima, limit, value, index, rows, size, width,
            PRODUCT=product, num_warps=1, enable_fp_fusion=False,
        )  # fmt: skip
    return value, index


def _rounded(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows as factors, their lengths, and the lengths of what rounding took."""
    coarse = v.bfloat16()
    coarse = torch.where(coarse.abs() < 2.0**-126, 0.0, coarse)  # some devices do so on their own
    factors = F.pad(coarse, (0, -v.shape[-1] % DEPTH)).to(FACTORS)
    exact = coarse.double()
    return factors, exact.norm(dim=-1), (v - exact).norm(dim=-1)
