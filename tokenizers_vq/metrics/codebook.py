"""Codebook use: usage, perplexity, entropy, dead codes, joint bits, bitrate efficiency.

Every one of these grows with the number of tokens seen (the same codec shows a usage of 0.49 on
256 tokens and 1.00 on 65,536), so each score carries its token count, and ``expected_usage`` gives
the usage at a fixed smaller count, which can be compared.

Reference:
    Hurlbert, The Nonconcept of Species Diversity, 1971, eq. 11 (rarefaction).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ShapeError, check_indices
from tokenizers_vq.metrics.base import NO_UPDATE, Metric, Score, State, skipped
from tokenizers_vq.types import Codes

SHOWN = 8  # codebooks whose frequencies are kept for the report
USAGE_AT = (2**12, 2**16, 2**20)  # token counts at which usage is comparable


def entropy_bits(counts: Tensor) -> float:
    """Return the entropy of the empirical distribution ``counts (M,)`` in bits, 0..log2 M."""
    seen = counts[counts > 0].double()
    p = seen / seen.sum()
    return float(-(p * p.log2()).sum()) + 0.0


def expected_usage(counts: Tensor, size: int, tokens: int) -> float | None:
    """Return the share of the codebook that ``tokens`` tokens drawn without replacement would hit.

    E[distinct] = sum_i (1 - C(N - n_i, m) / C(N, m)) for counts n_i of N tokens and m drawn.

    Args:
        counts: ``(M,)`` how often each seen code occurred.
        size: codes in the codebook.
        tokens: m; None is returned when fewer were seen.
    """
    total = int(counts.sum())
    if tokens > total:
        return None
    n = counts.double()
    left = total - n
    log_miss = (
        torch.lgamma(left + 1)
        - torch.lgamma((left - tokens + 1).clamp(min=1))
        - math.lgamma(total + 1)
        + math.lgamma(total - tokens + 1)
    )
    hit = torch.where(left >= tokens, 1 - log_miss.exp(), torch.ones_like(n))
    return float(hit.sum()) / size


def pooled_frequencies(counts: Tensor, size: int, bars: int = 160) -> list[float]:
    """Return at most ``bars`` mean counts, most frequent codes first, dead codes last.

    Args:
        counts: ``(codes seen,)``, sorted in falling order.
        size: codes in the codebook.
        bars: codes are pooled into that many groups of nearly one size.
    """
    ends = [size * k // min(bars, size) for k in range(min(bars, size) + 1)]
    total = torch.cat([torch.zeros(1, dtype=torch.float64), counts.double().cumsum(0)])
    sums = [float(total[min(end, len(counts))]) for end in ends]
    return [round((b - a) / (j - i), 4) for a, b, i, j in _pairs(sums, ends)]


class Codebook(Metric):
    """Codebook statistics over all tokens of a data set, per codebook and joint.

    Counts are kept for the codes that occur, so a 2^36-entry implicit codebook costs no more than
    its tokens.

    Args:
        usage_at: token counts at which the usage curve is given.
        resamples: accepted for uniformity; resampling images would only lower the usage, so these
            scores carry no interval.
        seed: accepted for uniformity.
    """

    def __init__(
        self, usage_at: Sequence[int] = USAGE_AT, resamples: int = 0, seed: int = 0
    ) -> None:
        super().__init__(resamples, seed)
        self.usage_at = tuple(usage_at)
        self.sizes: tuple[int, ...] = ()
        self.rows_seen: list[Tensor] = []
        self.row_counts: list[Tensor] = []

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Count the tokens of a batch of codes; positions with a -1 are left out."""
        if codes is not None:
            self.add(codes.indices, codes.codebook_sizes)

    def add(self, indices: Tensor, sizes: tuple[int, ...]) -> None:
        """Count ``indices (B, *grid, K)`` of codebooks of the given K sizes.

        Raises:
            ShapeError: an index is out of range, or the sizes changed between two batches.
        """
        check_indices(indices, tuple(sizes), "codebook metric")
        if self.sizes and self.sizes != tuple(sizes):
            raise ShapeError(
                f"codebook metric: expected codebooks of {self.sizes}; got {tuple(sizes)}. "
                "Reset before another tokenizer."
            )
        self.sizes = tuple(sizes)
        flat = indices.detach().cpu().reshape(-1, len(sizes))
        flat = flat[(flat >= 0).all(1)]
        if len(flat):
            rows, counts = torch.unique(flat, dim=0, return_counts=True)
            self.rows_seen.append(rows)
            self.row_counts.append(counts)

    def state(self) -> State:
        """Return the sizes and the counts."""
        if self.rows_seen:
            self._joint()
        return {"sizes": self.sizes, "rows": self.rows_seen, "counts": self.row_counts}

    def absorb(self, state: State) -> None:
        """Add another accumulator's counts."""
        if state["rows"]:
            self.sizes = self.sizes or tuple(state["sizes"])
            self.rows_seen += state["rows"]
            self.row_counts += state["counts"]

    def reset(self) -> None:
        """Forget every batch."""
        super().reset()
        self.sizes, self.rows_seen, self.row_counts = (), [], []

    def counted(self, k: int = 0) -> tuple[Tensor, Tensor]:
        """Return the codes of codebook k that occurred, rising, and how often, both int64."""
        rows, counts = self._joint()
        codes, summed = _merged(rows[:, k : k + 1], counts)
        return codes[:, 0], summed

    def histogram(self, k: int = 0) -> Tensor:
        """Return the counts of codebook k, most frequent first, ``(codes seen,)`` int64."""
        return self.counted(k)[1].sort(descending=True).values

    def compute(self) -> dict[str, Score]:
        """Return ``usage``, ``perplexity``, entropies, ``dead_codes``, ``bitrate_efficiency``."""
        names = (
            "usage", "perplexity", "entropy_bits", "dead_codes", "joint_bits",
            "bitrate_efficiency",
        )  # fmt: skip
        if not self.rows_seen:
            return dict.fromkeys(names, skipped(NO_UPDATE))
        joint = self._joint()[1]
        tokens = int(joint.sum())
        columns = [self.histogram(k) for k in range(len(self.sizes))]
        bits = [entropy_bits(column) for column in columns]
        usage = [len(column) / size for column, size in zip(columns, self.sizes, strict=True)]
        dead = [size - len(column) for column, size in zip(columns, self.sizes, strict=True)]
        perplexity = [2.0**bit for bit in bits]
        curve = {str(m): self._usage_at(columns, m) for m in self.usage_at}
        seen = {"tokens": tokens, "codebook_sizes": list(self.sizes)}
        nominal = [math.log2(size) for size in self.sizes]
        return {
            "usage": Score(
                _mean(usage), tokens, None, "of codes", True,
                detail={
                    **seen,
                    "per_codebook": usage,
                    "at_tokens": curve,
                    "frequencies": [
                        pooled_frequencies(column, size)
                        for column, size in zip(columns[:SHOWN], self.sizes, strict=False)
                    ],
                },
            ),
            "perplexity": Score(
                _mean(perplexity), tokens, None, "codes", True,
                detail={**seen, "per_codebook": perplexity},
            ),
            "entropy_bits": Score(
                sum(bits), tokens, None, "bit/position", None,
                detail={**seen, "per_codebook": bits,
                        "nominal_bits": sum(nominal)},
            ),
            "dead_codes": Score(
                float(sum(dead)), tokens, None, "codes", False,
                detail={**seen, "per_codebook": dead},
            ),
            "joint_bits": Score(
                entropy_bits(joint), tokens, None, "bit/position", None, detail=seen
            ),
            "bitrate_efficiency": Score(
                sum(bits) / max(sum(nominal), 1e-9), tokens, None, "", True,
                detail={**seen, "per_codebook": [bit / max(most, 1e-9)
                                                 for bit, most in zip(bits, nominal, strict=True)]},
            ),
        }  # fmt: skip

    def _joint(self) -> tuple[Tensor, Tensor]:
        """Return the distinct index rows and their counts; they replace the batches."""
        rows, counts = _merged(torch.cat(self.rows_seen), torch.cat(self.row_counts))
        self.rows_seen, self.row_counts = [rows], [counts]
        return rows, counts

    def _usage_at(self, columns: list[Tensor], tokens: int) -> float | None:
        shares = [
            expected_usage(column, size, tokens)
            for column, size in zip(columns, self.sizes, strict=True)
        ]
        known = [share for share in shares if share is not None]
        return _mean(known) if len(known) == len(shares) else None


def _merged(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return distinct ``rows (M, k)`` with their summed ``counts (M,)``."""
    distinct, place = torch.unique(rows, dim=0, return_inverse=True)
    summed = torch.zeros(len(distinct), dtype=torch.int64)
    return distinct, summed.index_add_(0, place, counts)


def _pairs(sums: list[float], ends: list[int]) -> list[tuple[float, float, int, int]]:
    return list(zip(sums[:-1], sums[1:], ends[:-1], ends[1:], strict=True))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
