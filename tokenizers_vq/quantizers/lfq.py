"""Lookup-free quantization: one bit per channel.

Reference:
    Yu et al., Language Model Beats Diffusion: Tokenizer is Key to Visual Generation, 2023,
    https://arxiv.org/abs/2310.05737, eq. 3-6;
    Han et al., Infinity: Scaling Bitwise AutoRegressive Modeling, 2024,
    https://arxiv.org/abs/2412.04431 (bitwise self-correction).
    Differs from the first: the batch entropy is exact at sizes where others use a bound.
"""

from dataclasses import replace

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.entropy import batch_entropy, sample_entropy
from tokenizers_vq.functional.radix import pack_bits, unpack_bits
from tokenizers_vq.quantizers.flat import Flat, Tokens, mean_square
from tokenizers_vq.quantizers.neighbours import leaves
from tokenizers_vq.quantizers.rows import RowQuantizer

MAX_BITS = 62  # one int64 index
BIT_ORDERS = ("little", "big")


class LFQ(RowQuantizer):
    """Lookup-free quantization: the sign of each channel.

    The loss is ``entropy_weight * (sample - diversity_weight * batch) + commitment_weight *
    commitment``. The first term makes each latent sure of its code, the second spreads the batch
    over the codebook; with ``diversity_weight=1`` their difference is negative, as it should be.
    Nothing is normalised inside: the entropy terms expect latents of about unit scale or below.

    Args:
        dim: latent width D; None for ``bits``.
        bits: number of channels d; the codebook has 2**d codes. Zero counts as negative.
        entropy_weight: of both entropy terms; often annealed from three times its final value.
        diversity_weight: of the batch entropy relative to the sample entropy.
        commitment_weight: pulls latents to their codes.
        inverse_temperature: sharpness of the soft assignment in the entropy terms.
        scale: codes are ``-scale`` and ``+scale``.
        flip_rate: in training each item of the batch draws a probability from 0 to this, with which
            each of its output's bits has the wrong sign. Indices and losses are those of the right
            ones: they are what a language model should predict. In a residual or multi-scale stack
            the stages after see what the wrong bits left over, and so learn to correct them.
        bit_order: ``"little"``: the first channel is the lowest bit; ``"big"``: the highest, as in
            some published models.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Terms:
        ``commitment``; unless their weight is 0 ``entropy_sample`` and ``entropy_batch`` in nats.
        Beyond 24 bits the latter is the sum over bits, an upper bound, and is called
        ``entropy_batch_bound``. It is over the batches of all ranks in training, of each rank
        alone in evaluation.

    Raises:
        ConfigError: ``bits`` is not in 1..62, ``flip_rate`` not in 0..1, or there is no such order.

    Example:
        >>> q = LFQ(dim=32, bits=10)
        >>> q(torch.zeros(2, 4, 4, 32)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    conventions = (*RowQuantizer.conventions, "scale", "bit_order")

    def __init__(
        self,
        dim: int | None = None,
        *,
        bits: int,
        entropy_weight: float = 0.1,
        diversity_weight: float = 1.0,
        commitment_weight: float = 0.25,
        inverse_temperature: float = 100.0,
        scale: float = 1.0,
        flip_rate: float = 0.0,
        bit_order: str = "little",
    ) -> None:
        if not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
            raise ConfigError(
                f"{type(self).__name__}: expected 1 to {MAX_BITS} bits; got {bits}. "
                "Use a grouped quantizer for more."
            )
        if not 0 <= flip_rate <= 1:
            raise ConfigError(
                f"{type(self).__name__}: expected flip_rate in 0..1; got {flip_rate}. "
                "It is a probability."
            )
        if bit_order not in BIT_ORDERS:
            raise unknown_name(f"{type(self).__name__} bit_order", bit_order, BIT_ORDERS)
        super().__init__(dim, bits, (2**bits,))
        self.bit_order = bit_order
        self.entropy_weight = entropy_weight
        self.diversity_weight = diversity_weight
        self.commitment_weight = commitment_weight
        self.inverse_temperature = inverse_temperature
        self.scale = scale
        self.flip_rate = flip_rate

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """One bit per channel."""
        return ((2,) * self.code_dim,)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the signs of ``u (N, d)``."""
        bits = u > 0
        return pack_bits(bits if self.bit_order == "little" else bits.flip(1))[:, None]

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, 1)``."""
        bits = unpack_bits(indices[:, 0], self.code_dim)
        bits = bits if self.bit_order == "little" else bits.flip(1)
        return (2 * bits - 1).float() * self.scale

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize ``u (N, d)``; in training with ``flip_rate`` get some bits wrong."""
        flat = super().quantize(u, source, tokens)
        if not self.training or self.flip_rate == 0:
            return flat
        wrong = self.wrong_bits(tokens)
        return replace(flat, out=flat.out - torch.where(wrong, 2 * flat.out.detach(), 0.0))

    def wrong_bits(self, tokens: Tokens) -> Tensor:
        """Return ``(N, d)`` bool, bits to get wrong: drawn anew at each call, by ``flip_rate``."""
        device = tokens.item.device
        rate = self.flip_rate * torch.rand(tokens.batch, 1, device=device)[tokens.item]
        return torch.rand(tokens.item.shape[0], self.code_dim, device=device) < rate

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the commitment term, and the entropy terms if they have a weight."""
        commitment = self._commitment(self._signal(u), codes, valid)
        loss, terms = self.commitment_weight * commitment, {"commitment": commitment.detach()}
        if self.entropy_weight:
            logits = self.logits(u)
            sample = sample_entropy(logits, valid)
            # In evaluation ranks may have different numbers of batches: none waits for another.
            batch, exact = batch_entropy(logits, valid, all_ranks=self.training)
            loss = loss + self.entropy_weight * (sample - self.diversity_weight * batch)
            terms["entropy_sample"] = sample.detach()
            terms["entropy_batch" if exact else "entropy_batch_bound"] = batch.detach()
        return loss, terms

    def logits(self, u: Tensor) -> Tensor:
        """Return the logits ``(N, d)`` of each bit of ``u (N, d)`` in the soft assignment."""
        return 4 * self.scale * self.inverse_temperature * self._signal(u)

    def surrogate(self, u: Tensor, codes: Tensor) -> Tensor:
        """Return ``codes`` with the gradient of what the signs are taken of."""
        return super().surrogate(self._signal(u), codes)

    def _signal(self, u: Tensor) -> Tensor:
        return u

    def _commitment(self, u: Tensor, codes: Tensor, valid: Tensor) -> Tensor:
        return mean_square(u, codes, valid)


def flip_bits(head: RowQuantizer, indices: Tensor, tokens: Tokens) -> Tensor:
    """Return ``indices (N, K)`` as a training output of ``head`` shows them; -1 stays.

    Those of heads with a ``flip_rate``, also inside of others, have wrong bits. The same tensor
    where there is none, and in evaluation.
    """
    parts = leaves(head)
    if not any(isinstance(part, LFQ) and part.training and part.flip_rate for part in parts):
        return indices
    columns = list(torch.split(indices, [part.num_codebooks for part in parts], dim=1))
    for k, part in enumerate(parts):
        if isinstance(part, LFQ) and part.training and part.flip_rate:
            flipped = columns[k] ^ pack_bits(part.wrong_bits(tokens))[:, None]
            columns[k] = torch.where(columns[k] >= 0, flipped, -1)
    return torch.cat(columns, dim=1)
