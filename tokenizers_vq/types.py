"""The values that rooms hand to each other: frozen dataclasses without behaviour beyond views."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

AXES = {"image": 2, "video": 3, "audio": 1, "volume": 3, "motion": 1, "protein": 1, "points": 1}
"""Sample axes of a kind of signal."""


@dataclass(frozen=True)
class Quantized:
    """What a quantizer returns.

    Attributes:
        z_q: ``(B, *grid, D)``, what the decoder eats; gradients flow through it to the encoder.
        indices: ``(B, *grid, K)`` int64; -1 at masked or dropped positions.
        loss: ``()`` float32, the weighted sum of the terms; a fresh tensor at every call.
        terms: unweighted means for logging, e.g. ``{"commitment": ...}``.
    """

    z_q: Tensor
    indices: Tensor
    loss: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Reconstruction:
    """What ``Tokenizer.forward`` returns.

    Attributes:
        x_hat: the decoded signal, of the input's shape, not clamped. A training pass that decodes
            nothing may leave it empty.
        z: ``(B, *grid, D)``, the encoder's output.
        quantized: what the quantizer made of ``z``.
        terms: further loss terms of the model, unweighted ``()`` tensors, by the names that follow
            ``model/`` in the weights of an objective.
        target: the signal that ``x_hat`` should be; None for the input.
        hidden: ``(B, h, w, W)`` of an inner layer, for objectives that teach it; None elsewhere.
    """

    x_hat: Tensor
    z: Tensor
    quantized: Quantized
    terms: dict[str, Tensor] = field(default_factory=dict)
    target: Tensor | None = None
    hidden: Tensor | None = None


@dataclass(frozen=True)
class SignalSpec:
    """What the numbers of a signal mean; saved in ``config.json``.

    Attributes:
        kind: the modality; it fixes the number of sample axes: image 2, video 3, audio 1,
            volume 3, motion 1 (frames), protein 1 (residues), points 1. Points are N samples of a
            shape's signed distance: x, y, z and the distance, below 0 inside, all in one unit, so
            that the shape fills [-1, 1].
        channels: size of axis 1 of the signal.
        value_range: smallest and largest value of a sample.
        sample_rate: Hz, audio only.
        frame_rate: Hz, video and motion.
    """

    kind: Literal["image", "video", "audio", "volume", "motion", "protein", "points"]
    channels: int = 3
    value_range: tuple[float, float] = (-1.0, 1.0)
    sample_rate: int | None = None
    frame_rate: float | None = None

    @property
    def axes(self) -> int:
        """Number of sample axes after batch and channels."""
        return AXES[self.kind]


@dataclass(frozen=True)
class Codes:
    """What ``Tokenizer.encode`` returns: everything ``decode`` needs, nothing else.

    Attributes:
        indices: ``(B, *grid, K)`` int64.
        shape: samples per axis of the original signal, for the exact crop.
        codebook_sizes: the K codebook sizes.
        model: ``name@hash`` of the tokenizer that made the codes.
        scale: ``(B, segments)`` float32, by what decoded segments are multiplied; None for 1.
        lengths: samples of each item, for a batch of several lengths; None where all have
            ``shape``. Indices behind the end of an item are -1.
    """

    indices: Tensor
    shape: tuple[int, ...]
    codebook_sizes: tuple[int, ...]
    model: str = ""
    scale: Tensor | None = None
    lengths: tuple[int, ...] | None = None

    @property
    def tokens(self) -> Tensor:
        """``(B, N)`` int64 for a language model: codebook k is shifted by the sizes before it.

        Tokens that are missing stay -1.
        """
        starts = [sum(self.codebook_sizes[:k]) for k in range(len(self.codebook_sizes))]
        offsets = torch.tensor(starts, device=self.indices.device)
        return torch.where(self.indices < 0, -1, self.indices + offsets).flatten(1)

    @property
    def vocab_size(self) -> int:
        """Number of different values in ``tokens``."""
        return sum(self.codebook_sizes)

    @property
    def bits(self) -> float:
        """Bits of one item at fixed length: positions x sum(log2 of the codebook sizes).

        Where tokens are missing, the mean over the items of what is there.
        """
        positions: float = math.prod(self.indices.shape[1:-1])
        missing = (self.indices < 0).all(-1)
        if bool(missing.any()):
            positions = float((~missing).sum()) / len(missing)
        return positions * sum(math.log2(size) for size in self.codebook_sizes)

    @property
    def bpp(self) -> float:
        """Bits per sample position of one item (per pixel for an image) at fixed length."""
        return self.bits / math.prod(self.shape)

    def save(self, path: str | Path, prior: object = None) -> int:
        """Write a ``.tok`` file and return its size in bytes; see ``bitstream.write_tok``."""
        from tokenizers_vq.bitstream import write_tok

        return write_tok(path, self, prior)

    @classmethod
    def load(cls, path: str | Path, prior: object = None) -> Codes:
        """Read a ``.tok`` file; see ``bitstream.read_tok``."""
        from tokenizers_vq.bitstream import read_tok

        return read_tok(path, prior)
