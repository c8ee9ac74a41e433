"""A head on latents turned by a fixed random rotation.

Reference:
    Chee et al., QuIP: 2-Bit Quantization of Large Language Models With Guarantees, 2023,
    https://arxiv.org/abs/2307.13304 (incoherence processing).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import Flat, Tokens, linear
from tokenizers_vq.quantizers.rows import Choose
from tokenizers_vq.quantizers.token_bridge import TokenBridge
from tokenizers_vq.quantizers.wrapper import Wrapper


class Rotated(Wrapper):
    """A head that sees every channel mixed with all others, and whose codes are turned back.

    Heads that treat channels one by one (fsq, lfq, token_bridge) spend equal bits on channels of
    unequal importance. After a random orthogonal map all channels have about equal variance and
    no outliers, lengths and distances being what they were. Nothing is learned.

    Args:
        dim: latent width D; None for the inner head's.
        inner: the head, of width D.
        seed: of the orthogonal matrix, which is saved with the head.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, K) of the inner head

    Raises:
        ConfigError: the inner head has another width, or its tokens depend on their place.

    Example:
        >>> from tokenizers_vq.quantizers.lfq import LFQ
        >>> q = Rotated(inner=LFQ(bits=8))
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    float32_buffers = ("rotation",)
    rotation: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        inner: Quantizer | Sequence[Quantizer],
        seed: int = 0,
    ) -> None:
        super().__init__(dim, inner)
        self.check_width(self.dim, "Leave its dim out.")
        self.register_buffer("rotation", _orthogonal(self.dim, seed))

    def fit(self, latents: Tensor) -> None:
        """Fit the inner head to ``latents (*any, D)``, turned; see ``TokenBridge.fit``.

        Raises:
            ConfigError: the inner head is not fitted.
            DataError: there are not two finite latents.
        """
        if not isinstance(self.inner, TokenBridge):
            raise ConfigError(
                f"Rotated.fit: expected token_bridge inside; got {type(self.inner).__name__}. "
                "Train that instead."
            )
        self.inner.fit(latents.detach().float() @ self.rotation)

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Turn, quantize by the inner head, turn back."""
        rows = u @ self.rotation
        origin = rows if source is u else source @ self.rotation
        flat = self.inner.quantize_rows(rows, origin, tokens)
        return Flat(flat.out @ self.rotation.T, flat.indices, flat.loss, flat.terms)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of the turned rows."""
        return self.inner.encode_rows(u @ self.rotation)

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the inner head's codes ``(N, D)``, turned back."""
        return self.inner.decode_rows(indices) @ self.rotation.T

    def soft_rows(self, rows: Tensor, choose: Choose) -> tuple[Tensor, list[Tensor]]:
        """Return indices and distributions of the inner head."""
        return self.inner.soft_rows(rows @ self.rotation, choose)

    def code_update(self, u: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Update the inner head from the turned rows."""
        return self.inner.update_rows(u @ self.rotation, indices, skipped)

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the choices ``(N, C, K)`` of the inner head."""
        return self.inner.candidates(linear(self.inner.project_in, u @ self.rotation), count)


def _orthogonal(width: int, seed: int) -> Tensor:
    """Return a random orthogonal matrix, any as likely as any other (Haar measure)."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(width, width, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    turn: Tensor = q * r.diagonal().sign()
    return turn.float()
