"""Nearest codeword in plain torch: the answer every compiled op has to give."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 2**21  # scores held at a time: 8 MiB of float32, which stays in a CPU's last cache
Search = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
BLOCK = 128  # codes: a minimum over them is vectorised


@torch.no_grad()
def nearest_code(x: Tensor, codebook: Tensor, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Return the squared distance to the nearest code and its index, for every row.

    Filter and refine. Scores ``|c|^2 / 2 - x . c`` in float32 leave as candidates all codes within
    twice their rounding bound of the smallest; the length of ``x`` is the same for all codes and
    would only cost digits. The candidates are measured as ``sum (x - c)^2`` in float64, added in a
    fixed order, and the lowest index wins a tie: no rounding of the filter shows in the answer.

    Args:
        x: ``(N, d)``, any number of rows, also none; searched in float32. Or ``(G, N, d)``: each
            of G groups is searched in its own codebook.
        codebook: ``(K, d)``, at least one row; codes that are not finite are never chosen. Or
            ``(G, K, d)``.
        chunk: at most this many scores exist at a time.

    Returns:
        Squared distances ``(N,)`` float32 and indices ``(N,)`` int64, with groups ``(G, N)``; a
        row that is not finite has index 0 and an infinite distance.

    Reference:
        Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1 (the bound).
    """
    return _search_groups(x, codebook, chunk, product=False)


@torch.no_grad()
def largest_product(x: Tensor, codebook: Tensor, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Return the largest inner product with a code and the index of that code, for every row.

    Like ``nearest_code``, with scores ``-x . c``: decided in float64, the lowest index on ties.

    Args:
        x: ``(N, d)`` or ``(G, N, d)``.
        codebook: ``(K, d)`` or ``(G, K, d)``; codes that are not finite are never chosen.
        chunk: at most this many scores exist at a time.

    Returns:
        Products ``(N,)`` float32 and indices ``(N,)`` int64, with groups ``(G, N)``; a row that is
        not finite has index 0 and product minus infinity.
    """
    negated, index = _search_groups(x, codebook, chunk, product=True)
    return -negated, index


@torch.no_grad()
def residual_codes(x: Tensor, codebooks: Sequence[Tensor], search: Search = nearest_code) -> Tensor:
    """Return the indices ``(N, M)`` of codes whose sum approaches ``x``, one codebook at a time.

    Each codebook is searched for the code nearest to what the sum so far leaves of ``x``; sums and
    differences are float32.

    Args:
        x: ``(N, d)``.
        codebooks: M tables ``(K, d)``; K may differ.
        search: what finds the nearest code.

    Reference:
        Zeghidour et al., SoundStream, 2021, https://arxiv.org/abs/2107.03312, algorithm 1.
    """
    total, columns = torch.zeros_like(x), []
    for codes in codebooks:
        columns.append(search(x - total, codes)[1])
        total = total + codes[columns[-1]]
    return torch.stack(columns, dim=1)


def _search_groups(
    x: Tensor, codebook: Tensor, chunk: int, *, product: bool
) -> tuple[Tensor, Tensor]:
    if x.ndim == 2:
        return _search(x, codebook, chunk, product=product)
    found = [_search(*pair, chunk, product=product) for pair in zip(x, codebook, strict=True)]
    if not found:
        return x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2], dtype=torch.int64)
    values, indices = zip(*found, strict=True)
    return torch.stack(values), torch.stack(indices)


def _search(x: Tensor, codebook: Tensor, chunk: int, *, product: bool) -> tuple[Tensor, Tensor]:
    """Return the smallest distance or negated product ``(N,)`` float32, and where it is."""
    with torch.autocast(x.device.type, enabled=False):
        x, codes = x.float(), codebook.float()
        if codes.shape[0] > BLOCK:  # codes that are never chosen fill the last block
            missing = -codes.shape[0] % BLOCK
            codes = F.pad(codes, (0, 0, 0, missing), value=torch.nan)
        usable = codes.isfinite().all(-1) & ~_repeated(codes)
        clean = torch.where(usable[:, None], codes, 0.0)
        half = 0.5 * clean.double().square().sum(-1)
        # The half length is one more channel: adding it to the product would write scores twice.
        offset = torch.where(usable, torch.zeros_like(half) if product else half, torch.inf)
        table = torch.cat([clean, offset.float()[:, None]], dim=1)
        signed, slack = F.pad(-x, (0, 1), value=1.0), _slack(x, half)
        value = x.new_full(x.shape[:1], torch.inf, dtype=torch.float64)
        index = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        rows = max(1, min(chunk // codes.shape[0], x.shape[0]))
        scores = x.new_empty(rows, codes.shape[0])  # one buffer: fresh ones fragment the heap
        for start in range(0, x.shape[0], rows):
            part = slice(start, start + rows)
            found = scores[: x[part].shape[0]]
            torch.mm(signed[part], table.T, out=found)
            pairs = _candidates(found, slack[part])
            value[part], index[part] = _refine(x[part], codes, pairs, product=product)
        return value.float(), index


def _repeated(codes: Tensor) -> Tensor:
    """Return ``(K,)`` bool: codes that equal the one before or the first, so lose every tie."""
    same = (codes[1:] == codes[:-1]).all(-1) | (codes[1:] == codes[:1]).all(-1)
    return F.pad(same, (1, 0))


def _candidates(scores: Tensor, slack: Tensor) -> Tensor:
    """Return the pairs ``(m, 2)`` of row and code whose score is close enough to the smallest.

    First whole blocks of codes, by their minimum: a minimum without its place is many times faster
    on a CPU than a comparison that stores its answer. "Not greater" instead of "less or equal":
    overflowed scores are candidates, too.

    Args:
        scores: ``(n, K)``, K at most one block or a multiple of it.
        slack: ``(n,)``; negative for a row without candidates.
    """
    blocks = scores.view(scores.shape[0], -1, min(BLOCK, scores.shape[1]))
    smallest = blocks.amin(2)
    limit = (smallest.amin(1) + slack)[:, None]
    row, block = (~(smallest > limit) & (slack >= 0)[:, None]).nonzero().unbind(1)
    place, column = (~(blocks[row, block] > limit[row])).nonzero().unbind(1)
    return torch.stack([row[place], block[place] * blocks.shape[2] + column], dim=1)


def _slack(x: Tensor, half: Tensor) -> Tensor:
    """Return twice the error bound of a score ``(N,)``; -1 for a row that is not finite.

    Args:
        x: ``(N, d)`` float32.
        half: half the squared lengths of the codes ``(K,)`` float64, 0 for those not finite.
    """
    length = x.double().square().sum(-1).sqrt()
    largest = half.amax()
    size = length * (2 * largest).sqrt() + largest
    n = (x.shape[1] + 8) * 2.0**-24
    if torch.get_float32_matmul_precision() != "highest":
        n = n + 2.0**-6  # both factors may be rounded to bfloat16 then, each by 2^-8
    error = n / (1 - n) * size + (x.shape[1] + 8) * 2.0**-125 if n < 0.5 else size * torch.inf
    error = torch.where(size < torch.finfo(torch.float32).max / 8, error, torch.inf)
    return torch.where(length.isfinite(), 2.0001 * error, -1.0).float()


def _refine(
    x: Tensor, codes: Tensor, pairs: Tensor, *, product: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the smallest value ``(n,)`` float64 and its lowest index ``(n,)`` int64.

    Args:
        x: ``(n, d)`` float32.
        codes: ``(K, d)`` float32.
        pairs: ``(m, 2)``, row and code of every candidate.
        product: measure negated inner products instead of squared distances.
    """
    measured = _measured(x, codes, pairs, product=product)
    row, code = pairs.unbind(1)
    best = measured.new_full(x.shape[:1], torch.inf).scatter_reduce(0, row, measured, "amin")
    last = codes.shape[0]
    code = torch.where((measured == best[row]) & (measured < torch.inf), code, last)
    index = code.new_full(x.shape[:1], last).scatter_reduce(0, row, code, "amin")
    return best, torch.where(index < last, index, 0)


def _measured(x: Tensor, codes: Tensor, pairs: Tensor, *, product: bool = False) -> Tensor:
    """Return ``(m,)`` float64, what every candidate measures; infinite where it is not finite."""
    step = max(1, CHUNK // x.shape[1])
    parts = [
        _measure(x[p[:, 0]], codes[p[:, 1]], product=product) for p in torch.split(pairs, step)
    ]
    measured = torch.cat(parts) if parts else x.new_empty(0, dtype=torch.float64)
    return torch.where(measured.isfinite(), measured, torch.inf)


def _measure(a: Tensor, b: Tensor, *, product: bool) -> Tensor:
    """Return ``sum (a - b)^2`` or ``-sum a b`` of rows ``(m, d)``, added as the kernels do.

    In float64; element d goes to lane d mod 8, lanes grow from the front, then halves are added.
    """
    terms = -a.double() * b.double() if product else (a.double() - b.double()).square()
    lanes = terms.new_zeros(a.shape[0], 8)
    for start in range(0, a.shape[1], 8):
        part = terms[:, start : start + 8]
        lanes[:, : part.shape[1]] += part
    lanes = lanes[:, :4] + lanes[:, 4:]
    lanes = lanes[:, :2] + lanes[:, 2:]
    return lanes[:, 0] + lanes[:, 1]


@torch.no_grad()
def nearest_codes(x: Tensor, codebook: Tensor, count: int, chunk: int = CHUNK) -> Tensor:
    """Return the indices ``(N, count)`` of the nearest codes, nearest first.

    Exact as ``nearest_code`` is: all codes whose float32 score lies within the bound of the
    count-th best are measured in float64 and sorted, the lowest index first among equals. Codes
    that are not finite come last; a row that is not finite gets ``0..count - 1``.

    Args:
        x: ``(N, d)``, any number of rows.
        codebook: ``(K, d)``; ``count`` is cut to K.
        count: how many codes per row.
        chunk: at most this many scores exist at a time.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, codes = x.float(), codebook.float()
        count = min(count, codes.shape[0])
        if torch.compiler.is_compiling():  # one node of the graph: how many candidates depends on x
            found: Tensor = torch.ops.tokenizers_vq.nearest_codes(x, codes, count)
            return found
        half = 0.5 * codes.double().square().sum(-1)
        usable = half.isfinite()
        slack = _slack(x, torch.where(usable, half, 0.0))
        slack = torch.where(slack < 0, torch.inf, slack)
        offset = torch.where(usable, half, torch.inf).float()
        table = torch.where(usable[:, None], codes, 0.0)
        index = torch.empty(x.shape[0], count, dtype=torch.int64, device=x.device)
        rows = max(1, chunk // codes.shape[0])
        for start in range(0, x.shape[0], rows):
            part = slice(start, start + rows)
            scores = torch.addmm(offset, x[part], table.T, alpha=-1)
            limit = scores.kthvalue(max(count, 1), dim=1).values + slack[part]
            pairs = (~(scores > limit[:, None])).nonzero()
            index[part] = _first_codes(x[part], codes, pairs, count)
        return index


def _first_codes(x: Tensor, codes: Tensor, pairs: Tensor, count: int) -> Tensor:
    """Return ``(n, count)``: of every row's candidates the nearest, the lowest index first."""
    row, code = pairs.unbind(1)  # ascending, both
    order = _measured(x, codes, pairs).argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    many = torch.bincount(row, minlength=x.shape[0])
    places = (many.cumsum(0) - many)[:, None] + torch.arange(count, device=x.device)
    return code[order][places]


@torch.no_grad()
def code_stats(x: Tensor, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return how many rows each code got ``(K,)`` and their sum ``(K, d)``, both float32.

    Args:
        x: ``(N, d)`` float32.
        index: ``(N,)`` int64 in ``0..size - 1``.
        size: number of codes K.
    """
    counts = torch.bincount(index, minlength=size).float()
    return counts, x.new_zeros(size, x.shape[1]).index_add_(0, index, x)
