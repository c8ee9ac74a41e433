"""Long signals for networks that take short ones: cutting, loudness, and adding up overlaps.

``Segments`` are coded each by itself, overlap and all, and added up. Of ``Windows`` that overlap,
every position comes from one of them.

Reference:
    Defossez et al., High Fidelity Neural Audio Compression, 2022,
    https://arxiv.org/abs/2210.13438, sections 3.1 and 4.1 (48 kHz: 1 s with 10 ms of overlap,
    each divided by its loudness).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError


@dataclass(frozen=True)
class Segments:
    """How the signals of a network are cut and scaled.

    Attributes:
        length: samples of a segment; None for all of the signal.
        overlap: samples that neighbouring segments have in common.
        loudness: divide each segment by its root mean square, and multiply what is decoded.

    Raises:
        ConfigError: ``overlap`` is not below ``length``.
    """

    length: int | None = None
    overlap: int = 0
    loudness: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.length is not None and not 0 <= self.overlap < self.length:
            raise ConfigError(
                f"Segments: expected an overlap from 0 to below the length {self.length}; got "
                f"{self.overlap}. Correct the backbone config."
            )

    def spans(self, samples: int) -> list[tuple[int, int]]:
        """Return where each segment of a signal begins and ends."""
        if self.length is None:
            return [(0, samples)]
        starts = range(0, samples, self.length - self.overlap)
        return [(start, min(start + self.length, samples)) for start in starts]

    def scale(self, x: Tensor) -> Tensor | None:
        """Return the loudness ``(B,)`` of segments ``x (B, C, T)``, that of the mean channel."""
        if not self.loudness:
            return None
        return x.mean(1).square().mean(-1).sqrt() + 1e-8


class Span(NamedTuple):
    """One window: what the network sees, from ``start`` to ``end``, and what is taken from it.

    Attributes:
        start: first sample that the network sees.
        end: behind the last one.
        first: first sample whose position is taken from this window.
        last: behind the last one.
    """

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class Windows:
    """How a network that takes short signals looks at long ones: window after window.

    Attributes:
        length: samples of a window.
        step: samples between the starts of windows; at most ``length``.
        before: samples at the start of all windows but the first that the one before gives. With
            0 each gives its first ``step`` samples. Otherwise the rest is dropped behind, and the
            first window that reaches the end of the signal is the last.

    Raises:
        ConfigError: windows leave something out.
    """

    length: int
    step: int
    before: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.step <= self.length - self.before or self.before < 0:
            raise ConfigError(
                f"Windows: expected a step from 1 to length - before; got length {self.length}, "
                f"step {self.step}, before {self.before}. Correct the backbone config."
            )

    def spans(self, samples: int) -> list[Span]:
        """Return the windows of a signal; what is taken from them is the signal, in order."""
        enough = self.length if self.before else self.step  # of the last window
        count = 1 + max(0, -(-(samples - enough) // self.step))
        edges = [0, *(i * self.step + self.before for i in range(1, count)), samples]
        return [
            Span(i * self.step, min(i * self.step + self.length, samples), edges[i], edges[i + 1])
            for i in range(count)
        ]


def overlap_add(parts: Sequence[Tensor], spans: Sequence[tuple[int, int]]) -> Tensor:
    """Return the signal ``(B, C, T)`` of decoded segments.

    Where segments overlap they are weighted by a triangle over the length of the first one.

    Args:
        parts: ``(B, C, n)`` each, n of at least the span.
        spans: where each begins and ends; the last one ends at T.
    """
    if len(parts) == 1:
        return parts[0][..., : spans[0][1]]
    length = parts[0].shape[-1]
    place = torch.arange(1, length + 1, device=parts[0].device, dtype=parts[0].dtype)
    weight = 0.5 - (place / (length + 1) - 0.5).abs()
    total = parts[0].new_zeros(*parts[0].shape[:2], max(end for _, end in spans))
    weights = torch.zeros_like(total[0, 0])
    for part, (start, end) in zip(parts, spans, strict=True):
        total[..., start:end] += weight[: end - start] * part[..., : end - start]
        weights[start:end] += weight[: end - start]
    return total / weights
