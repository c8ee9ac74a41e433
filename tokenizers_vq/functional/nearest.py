"""Nearest codeword in plain torch: the answer every compiled op has to give."""

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 2**21  # scores held at a time: 8 MiB of float32, which stays in a CPU's last cache
BLOCK = 128  # columns: a maximum over them is vectorised
GRAPH_COLUMNS = 4096  # codes per block in a traced graph, where the rows may be dynamic


@torch.no_grad()
def nearest_code(x: Tensor, codebook: Tensor, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Return the squared distance to the nearest code and its index, for every row.

    Maximises ``x . e - |e|^2 / 2``. The length of ``x`` is the same for all codes and would only
    cost digits; the square root would too. Works in float32 whatever the inputs are; equal scores
    give the lowest index. Codes that are not finite are never chosen; a row that is not finite
    gets some index in range.

    Args:
        x: ``(N, d)``, any number of rows, also none.
        codebook: ``(K, d)``, at least one row.
        chunk: at most this many scores exist at a time.

    Returns:
        Squared distances ``(N,)`` float32 and indices ``(N,)`` int64.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, codes = x.float(), codebook.float()
        half = 0.5 * codes.square().sum(-1)
        usable = torch.isfinite(half)
        codes = torch.where(usable[:, None], codes, 0.0)
        bias = torch.where(usable, -half, -torch.inf)
        if torch.compiler.is_compiling():
            index = _search_columns(x, codes, bias)
        else:
            index = _search_rows(x, codes, bias, chunk)
        return (x - codes[index]).square().sum(-1), index


@torch.no_grad()
def nearest_codes(x: Tensor, codebook: Tensor, count: int, chunk: int = CHUNK) -> Tensor:
    """Return the indices ``(N, count)`` of the nearest codes, nearest first.

    Args:
        x: ``(N, d)``, any number of rows.
        codebook: ``(K, d)``; ``count`` is cut to K.
        count: how many codes per row.
        chunk: at most this many scores exist at a time.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, codes = x.float(), codebook.float()
        count = min(count, codes.shape[0])
        half = 0.5 * codes.square().sum(-1)
        index = torch.empty(x.shape[0], count, dtype=torch.int64, device=x.device)
        if torch.compiler.is_compiling():  # a graph with any number of rows has no loop over them
            return torch.addmm(-half, x, codes.T).topk(count, dim=1).indices
        rows = max(1, chunk // codes.shape[0])
        for start in range(0, x.shape[0], rows):
            scores = torch.addmm(-half, x[start : start + rows], codes.T)
            index[start : start + rows] = scores.topk(count, dim=1).indices
        return index


def _search_rows(x: Tensor, codes: Tensor, bias: Tensor, chunk: int) -> Tensor:
    # The bias is one more channel: adding it to the product would write all scores twice.
    table = torch.cat([codes, bias[:, None]], dim=1)
    missing = -codes.shape[0] % BLOCK
    if codes.shape[0] > BLOCK and missing:
        table = F.pad(table, (0, 0, 0, missing))
        table[codes.shape[0] :, -1] = -torch.inf
    x = F.pad(x, (0, 1), value=1.0)
    rows = max(1, min(chunk // table.shape[0], x.shape[0]))
    scores = x.new_empty(rows, table.shape[0])  # one buffer: fresh ones fragment the heap
    index = torch.empty(x.shape[0], dtype=torch.int64, device=x.device)
    for start in range(0, x.shape[0], rows):
        part = x[start : start + rows]
        torch.mm(part, table.T, out=scores[: part.shape[0]])
        index[start : start + rows] = _first_largest(scores[: part.shape[0]])
    return index


def _first_largest(scores: Tensor) -> Tensor:
    """Return ``argmax`` over columns, ``(n,)``: the best block first, then the best inside it.

    A maximum without its place is many times faster on a CPU than one with it.
    """
    count, width = scores.shape
    if width <= BLOCK:
        return scores.max(1).indices
    blocks = scores.view(count, width // BLOCK, BLOCK)
    best = blocks.amax(2).max(1).indices
    inside = blocks[torch.arange(count, device=scores.device), best]
    return best * BLOCK + inside.max(1).indices


def _search_columns(x: Tensor, codes: Tensor, bias: Tensor) -> Tensor:
    """Search block by block of codes: a graph with any number of rows has no loop over them."""
    best, index = torch.addmm(bias[:GRAPH_COLUMNS], x, codes[:GRAPH_COLUMNS].T).max(1)
    for start in range(GRAPH_COLUMNS, codes.shape[0], GRAPH_COLUMNS):
        stop = start + GRAPH_COLUMNS
        score, column = torch.addmm(bias[start:stop], x, codes[start:stop].T).max(1)
        index = torch.where(score > best, column + start, index)
        best = torch.maximum(best, score)
    return index
