"""The shortest vectors of dense lattices, and the fast search of those of the Leech lattice.

Reference:
    Conway and Sloane, Sphere Packings, Lattices and Groups, 3rd edition, 1999,
    https://doi.org/10.1007/978-1-4757-6568-7, chapter 4, sections 7 (D4), 8 (E8) and
    11 (Leech).
"""

from itertools import combinations

import torch
from torch import Tensor

GOLAY = (
    0b110001110101  # x^11 + x^10 + x^6 + x^5 + x^4 + x^2 + 1 generates the cyclic code of length 23
)
PAIRS, OCTADS = 276 * 4, 759 * 128  # vectors (4, 4, 0...) and (2^8, 0...); the rest are (3, 1^23)


def golay_code() -> Tensor:
    """Return the 4,096 words of the extended binary Golay code as numbers of 24 bits.

    ``(4096,)`` int64; word ``m`` has the low twelve bits ``m``, which determine the others.
    """
    messages = torch.arange(4096)
    words = torch.zeros_like(messages)
    for i in range(12):
        words ^= ((messages >> i) & 1) * (GOLAY << i)
    words |= (bits(words, 23).sum(1) & 1) << 23
    return words[(words & 4095).argsort()]


def octads(words: Tensor) -> Tensor:
    """Return the positions, ascending, of the 759 Golay words of weight 8, ``(759, 8)`` int64."""
    table = bits(words, 24)
    return table[table.sum(1) == 8].nonzero()[:, 1].reshape(-1, 8)


def d4() -> Tensor:
    """Return the 24 minimal vectors of D4, ``(24, 4)`` float32, of unit length."""
    return _pairs(4) / 2**0.5


def e8() -> Tensor:
    """Return the 240 minimal vectors of E8, ``(240, 8)`` float32, of unit length.

    112 have two entries of one size; 128 have eight, an even number of them negative.
    """
    return torch.cat([_pairs(8), _even_signs() / 2]) / 2**0.5


def leech() -> Tensor:
    """Return the 196,560 minimal vectors of the Leech lattice, ``(196560, 24)`` float32.

    They have unit length and are, in this order, times the square root of 32:

    * 1,104 with two entries 4 at positions ``i < j``: pairs in lexicographic order, fastest the
      signs, bit 0 of which is the sign of entry ``i`` and bit 1 that of ``j``;
    * 97,152 with eight entries 2 at an octad: octads by their Golay word, fastest the signs, bit
      b of which is that of the b-th position; the eighth makes the number of minus signs even;
    * 98,304 with entries 1, negative where a Golay word has ones, but for one entry, times -3: by
      word, fastest the position of that entry.

    A set bit is a minus sign.
    """
    words = golay_code()
    eights = torch.zeros(759, 128, 24)
    positions = octads(words)[:, None].expand(-1, 128, -1)
    eights.scatter_(2, positions, (2 * _even_signs()).expand(759, -1, -1))
    ones = signs(words)[:, None] * (1 - 4 * torch.eye(24))
    families = [4 * _pairs(24), eights.flatten(0, 1), ones.flatten(0, 1)]
    return torch.cat(families).div_(32**0.5)


def nearest_leech(x: Tensor, words: Tensor, positions: Tensor) -> Tensor:
    """Return the indices in ``leech()`` of the vectors with the largest inner product.

    The signs and, in each family, all but one choice follow from the latent, so instead of
    196,560 scores there are one for pairs, 759 for octads and 4,096 for Golay words.

    Args:
        x: ``(N, 24)`` float32.
        words: ``golay_code()``.
        positions: ``octads(words)``.

    Returns:
        ``(N,)`` int64; of equally near vectors of two families the earlier.
    """
    families = (_best_pair(x), _best_octad(x, positions), _best_word(x, words))
    scores = torch.stack([score for score, _ in families], dim=1)
    indices = torch.stack([index for _, index in families], dim=1)
    return indices.gather(1, scores.argmax(1, keepdim=True))[:, 0]


def bits(numbers: Tensor, count: int) -> Tensor:
    """Return the lowest ``count`` bits of ``numbers (n,)``, lowest first, ``(n, count)`` int64."""
    out: Tensor = (numbers[:, None] >> torch.arange(count, device=numbers.device)) & 1
    return out


def signs(numbers: Tensor, count: int = 24) -> Tensor:
    """Return -1 for set and +1 for other bits of ``numbers (n,)``, ``(n, count)`` float32."""
    return (1 - 2 * bits(numbers, count)).float()


def _best_pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return score and index of the best vector with two entries 4."""
    size, where = x.abs().topk(2, dim=1)
    first, second = where.amin(1), where.amax(1)
    rank = first * (47 - first) // 2 + second - first - 1  # pairs (i, j) before (first, second)
    low = x.gather(1, first[:, None])[:, 0] < 0
    high = x.gather(1, second[:, None])[:, 0] < 0
    return 4 * size.sum(1), 4 * rank + low + 2 * high


def _best_octad(x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return score and index of the best vector with eight entries 2.

    It has the signs of the latent; if that makes an odd number of minus signs, the smallest entry
    takes the wrong one.
    """
    inside = x.new_zeros(759, 24).scatter_(1, positions, 1.0).T
    size, minus = x.abs(), x < 0
    odd = (minus.to(x.dtype) @ inside) % 2
    score, octad = (2 * (size @ inside - 2 * odd * _smallest(size, positions))).max(1)
    entries = x.gather(1, positions[octad])
    wrong = torch.arange(8, device=x.device) == entries.abs().argmin(1, keepdim=True)
    wrong = wrong & (odd.gather(1, octad[:, None]) > 0)
    weights = 2 ** torch.arange(7, device=x.device)
    return score, PAIRS + 128 * octad + (((entries < 0) ^ wrong)[:, :7] * weights).sum(1)


def _smallest(size: Tensor, positions: Tensor) -> Tensor:
    """Return the smallest of the entries ``size (N, 24)`` in each octad, ``(N, 759)``."""
    entries = size.T.contiguous()  # rows of one entry are copied as a whole
    out = entries[positions[:, 0]]
    for place in positions.T[1:]:
        out = torch.minimum(out, entries[place])
    return out.T


def _best_word(x: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Return score and index of the best vector with entries 1 and one entry -3.

    With the signs s of a word, that is ``sum s x + 4 max(-s x)``. Both are tables over the two
    halves of its bits; the low half is the number of the word.
    """
    (low_sum, low_max), (high_sum, high_max) = _half_tables(x[:, :12]), _half_tables(x[:, 12:])
    high = words >> 12
    scores = low_sum + high_sum[:, high] + 4 * torch.maximum(low_max, high_max[:, high])
    score, word = scores.max(1)
    against = -signs(words[word]) * x
    return score, PAIRS + OCTADS + 24 * word + against.argmax(1)


def _half_tables(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``sum s x`` and ``max(-s x)`` for all signs s of twelve entries, two ``(N, 4096)``."""
    total = x.new_zeros(x.shape[0], 1)
    largest = torch.full_like(total, -torch.inf)
    for entry in torch.split(x, 1, dim=1):
        total = torch.cat([total + entry, total - entry], dim=1)
        largest = torch.cat([torch.maximum(largest, -entry), torch.maximum(largest, entry)], dim=1)
    return total, largest


def _pairs(width: int) -> Tensor:
    """Return all vectors with two entries of size 1, ``(2 width (width - 1), width)``."""
    places = torch.tensor(list(combinations(range(width), 2)))
    out = torch.zeros(len(places), 4, width)
    out.scatter_(
        2, places[:, None].expand(-1, 4, -1), signs(torch.arange(4), 2).expand(len(places), -1, -1)
    )
    return out.flatten(0, 1)


def _even_signs() -> Tensor:
    """Return ``(128, 8)``: all signs of eight entries with an even number of minus signs."""
    seven = signs(torch.arange(128), 7)
    return torch.cat([seven, seven.prod(1, keepdim=True)], dim=1)
