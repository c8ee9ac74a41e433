"""Quantization by coin tosses: a learned map scores bits, and their pattern names a code.

Reference:
    Fleuret, The Free Transformer, 2025, https://arxiv.org/abs/2510.17558, section 3 (the binary
    mapper, free bits).
    Differs from the paper: no coins outside training, so that encoding repeats itself.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.entropy import weighted_mean
from tokenizers_vq.functional.radix import pack_bits, unpack_bits
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.quantizers.flat import Flat, Tokens, code_width, linear
from tokenizers_vq.quantizers.rows import RowQuantizer

MAX_BITS = 16  # training holds a probability for every token and code


class BinaryMapper(RowQuantizer):
    """Binary mapper: independent bits drawn from a latent choose one of ``2**bits`` codes.

    A linear map scores each bit. In training bit i is 1 with probability ``sigmoid(score_i)``; in
    evaluation where the score is positive. The output is the code that the bits name, with the
    gradient of the mean of all codes, a code's probability being the product of its bits'. What a
    token says beyond ``free_bits`` nats costs: so the latents say little, unless it helps.

    Args:
        dim: latent width D; None for ``code_dim``.
        bits: number of bits; the codebook has 2**bits codes. The first is the lowest.
        code_dim: width d of the codes; None for ``dim``.
        kl_weight: of the divergence of the bits from fair coins, as far as it exceeds
            ``free_bits``.
        free_bits: nats per token that cost nothing; ln 2, one bit, in the paper.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Terms:
        ``kl`` in nats per token, all of it.

    Raises:
        ConfigError: ``bits`` is not in 1..16, ``free_bits`` is below 0, or both widths are missing.

    Example:
        >>> q = BinaryMapper(dim=8, bits=4)
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        bits: int,
        code_dim: int | None = None,
        kl_weight: float = 1.0,
        free_bits: float = math.log(2),
    ) -> None:
        if not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
            raise ConfigError(
                f"BinaryMapper: expected 1 to {MAX_BITS} bits; got {bits!r}. "
                "Use a grouped quantizer for more."
            )
        if not free_bits >= 0:
            raise ConfigError(
                f"BinaryMapper: expected free_bits of at least 0; got {free_bits}. They are nats."
            )
        width = code_width("BinaryMapper", dim, code_dim)
        super().__init__(dim, width, (2**bits,))
        self.bits = bits
        self.kl_weight = kl_weight
        self.free_bits = free_bits
        self.scores = nn.Linear(width, bits)
        self.codebook = nn.Parameter(torch.randn(2**bits, width))

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The bits."""
        return ((2,) * self.bits,)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the likelier value of each bit."""
        return pack_bits(linear(self.scores, u) > 0)[:, None]

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, 1)``."""
        return F.embedding(indices[:, 0], self.codebook.float())

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize ``u (N, d)``: bits drawn in training, the likelier ones in evaluation."""
        scores = linear(self.scores, u)
        kl = self.bits * math.log(2) - _entropy(scores)
        cost = weighted_mean((kl - self.free_bits).relu(), tokens.valid)
        if source is not u:
            scores = linear(self.scores, source)
        chance = torch.sigmoid(scores.detach())
        ones = torch.rand_like(chance) < chance if self.training else scores > 0
        indices = pack_bits(ones)[:, None]
        codes = self.code_vectors(indices)
        out = codes
        if torch.is_grad_enabled():  # the mean is there for its gradient only
            mean = self._probabilities(scores) @ self.codebook.detach().float()
            out = straight_through(mean, codes) + (codes - codes.detach())
        # A token that is not finite stands for nothing that a code could learn from.
        out = torch.where(tokens.valid[:, None], out, out.detach())
        terms = {"kl": weighted_mean(kl.detach(), tokens.valid)}
        return Flat(out, indices, self.kl_weight * cost, terms)

    def _probabilities(self, scores: Tensor) -> Tensor:
        """Return ``(N, 2**bits)``: the product of the probabilities of each code's bits."""
        codes = torch.arange(2**self.bits, device=scores.device)
        ones = unpack_bits(codes, self.bits).to(scores.dtype)
        return (F.logsigmoid(scores) @ ones.T + F.logsigmoid(-scores) @ (1 - ones).T).exp()


def _entropy(scores: Tensor) -> Tensor:
    """Return the entropy ``(N,)`` in nats of independent bits with ``scores (N, bits)``."""
    return (F.softplus(scores) - scores * torch.sigmoid(scores)).sum(-1)
