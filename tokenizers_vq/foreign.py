"""A tokenizer of another project behind our two verbs: about ten lines of an adapter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokenizers_vq.functional.framing import crop
from tokenizers_vq.types import Codes, SignalSpec


class Foreign:
    """What ``tvq verify`` and ``evaluate`` need of a tokenizer, around somebody else's module.

    Override ``indices`` and ``signals``; everything else follows. See docs/receipts.md.

    Args:
        name: printed with every number.
        module: the model; put into eval mode.
        signal: what the numbers of its signals mean.
        stride: samples per token position, one per sample axis.
        codebook_sizes: the K codebook sizes.
        causal: whether its documentation says that a token depends on nothing behind it.
        size: samples per axis, where it takes one size only.
    """

    prior = None  # symbol statistics of the entropy coder: its files are of fixed width

    def __init__(
        self,
        name: str,
        module: nn.Module,
        signal: SignalSpec,
        stride: Sequence[int],
        codebook_sizes: Sequence[int],
        *,
        causal: bool = False,
        size: Sequence[int] | None = None,
    ) -> None:
        self.name, self.module, self.signal = name, module.eval(), signal
        self.stride, self.codebook_sizes = tuple(stride), tuple(codebook_sizes)
        self.causal = causal
        self.size = None if size is None else tuple(size)

    def indices(self, x: Tensor) -> Tensor:
        """Return the tokens of signals.

        Args:
            x: ``(B, C, *S)``.

        Returns:
            ``(B, *grid, K)`` int64.
        """
        raise NotImplementedError(f"{type(self).__name__}.indices")

    def signals(self, indices: Tensor) -> Tensor:
        """Return the signals ``(B, C, *S)`` of tokens ``(B, *grid, K)``, not cropped."""
        raise NotImplementedError(f"{type(self).__name__}.signals")

    def reconstruct(self, x: Tensor) -> Tensor | None:
        """Return what the model's own forward makes of ``x``, cropped; None where it has none."""
        return None

    def padded(self, x: Tensor, lengths: Sequence[int]) -> Codes:
        """Return the codes of a batch padded with zeros; override where the model takes a mask."""
        return self.encode(x)

    @property
    def sha256(self) -> str:
        """Hex digest of the weights as they are now."""
        digest = hashlib.sha256()
        for key, value in sorted(self.module.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def parameters(self) -> Any:
        """Yield the parameters of the module."""
        return self.module.parameters()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Codes:
        """Return the codes of signals ``(B, C, *S)``."""
        indices = self.indices(x).contiguous()
        sizes = self.codebook_sizes[: indices.shape[-1]]
        return Codes(indices, tuple(x.shape[2:]), sizes, self.name)

    @torch.no_grad()
    def decode(self, codes: Codes) -> Tensor:
        """Return the signals ``(B, C, *S)`` of codes, cropped to the size that was encoded."""
        return crop(self.signals(codes.indices), codes.shape)
