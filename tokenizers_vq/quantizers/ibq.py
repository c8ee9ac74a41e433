"""Index backpropagation quantization: every code learns from every latent.

Reference:
    Shi et al., Scalable Image Tokenization with Index Backpropagation Quantization, 2024,
    https://arxiv.org/abs/2412.02692, section 3 (index backpropagation, losses), as in the authors'
    released models: the smaller of the two weights is on the codebook term.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.assignment import assignment_sums, soft_codes
from tokenizers_vq.functional.distributed import sum_over_ranks, total_over_ranks
from tokenizers_vq.functional.entropy import entropy
from tokenizers_vq.ops import largest_product
from tokenizers_vq.quantizers.flat import Flat, Tokens, code_width, mean_square
from tokenizers_vq.quantizers.rows import RowQuantizer


class IBQ(RowQuantizer):
    """Index backpropagation: the code with the largest inner product, with a soft gradient.

    The output is the chosen code. Its gradient is that of the mean of all codes under
    ``softmax(z . e)``, so it reaches the latent and the whole codebook, and large codebooks stay
    in use. The loss is ``soft_weight * soft + commitment_weight * commitment + codebook_weight *
    codebook + entropy_weight * (sample - diversity_weight * batch)``.

    Time grows with tokens times codes, as in any search; memory does not: assignments are computed
    in chunks, and computed again in the backward pass.

    Args:
        dim: latent width D; None for ``code_dim``.
        codebook_size: number of codes K.
        code_dim: width d of the codes; None for ``dim``.
        soft_weight: of the squared distance whose gradient goes to latents and, through the soft
            assignment, to all codes.
        commitment_weight: pulls latents to their codes.
        codebook_weight: pulls codes to their latents.
        entropy_weight: of both entropy terms.
        diversity_weight: of the batch entropy relative to the sample entropy.
        inverse_temperature: sharpness of the soft assignment in the entropy terms; that of the
            gradient has temperature 1.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Terms:
        ``soft``, ``commitment`` and ``codebook``, of one value and three gradients; unless their
        weight is 0 ``entropy_sample`` and ``entropy_batch`` in nats. The latter is over the batches
        of all ranks in training, of each rank alone in evaluation.

    Raises:
        ConfigError: both widths are missing, a size is below 1, or ``inverse_temperature`` is not
            above 0.

    Example:
        >>> q = IBQ(dim=8, codebook_size=16)
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        codebook_size: int,
        code_dim: int | None = None,
        soft_weight: float = 1.0,
        commitment_weight: float = 1.0,
        codebook_weight: float = 0.25,
        entropy_weight: float = 0.05,
        diversity_weight: float = 1.0,
        inverse_temperature: float = 100.0,
    ) -> None:
        width = code_width("IBQ", dim, code_dim)
        if inverse_temperature <= 0:
            raise ConfigError(
                f"IBQ: expected an inverse_temperature above 0; got {inverse_temperature}. "
                "Turn entropies off by entropy_weight=0."
            )
        super().__init__(dim, width, (codebook_size,))
        self.soft_weight = soft_weight
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.entropy_weight = entropy_weight
        self.diversity_weight = diversity_weight
        self.inverse_temperature = inverse_temperature
        codes = torch.empty(codebook_size, width).uniform_(-1 / codebook_size, 1 / codebook_size)
        self.codebook = nn.Parameter(codes)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the largest inner products."""
        return largest_product(u.detach(), self.codebook.detach())[1][:, None]

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the indices ``(N, C, 1)`` of up to ``count`` largest inner products."""
        scores = u @ self.codebook.detach().float().T
        return scores.topk(min(count, scores.shape[1]), dim=1).indices[..., None]

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, 1)``."""
        return F.embedding(indices[:, 0], self.codebook.float())

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize ``u (N, d)``; the gradient of the output is the soft one."""
        indices = self.code_indices(u)
        codebook = self.codebook.float()
        soft = soft_codes(u, codebook, indices[:, 0])
        loss, terms = self._losses(u, soft, codebook, indices, tokens.valid)
        out = soft if source is u else soft_codes(source, codebook, indices[:, 0])
        # A token that is not finite stands for nothing that a code could learn from.
        out = torch.where(tokens.valid[:, None], out, out.detach())
        return Flat(out, indices, loss, {name: term.detach() for name, term in terms.items()})

    def _losses(
        self, u: Tensor, soft: Tensor, codebook: Tensor, indices: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        codes = F.embedding(indices[:, 0], codebook)
        terms = {
            "soft": mean_square(soft, u, valid),
            "commitment": mean_square(u, codes.detach(), valid),
            "codebook": mean_square(codes, u.detach(), valid),
        }
        loss = self.soft_weight * terms["soft"]
        loss = loss + self.commitment_weight * terms["commitment"]
        loss = loss + self.codebook_weight * terms["codebook"]
        if self.entropy_weight:
            sample, batch = self._entropies(u, codebook, valid)
            loss = loss + self.entropy_weight * (sample - self.diversity_weight * batch)
            terms |= {"entropy_sample": sample, "entropy_batch": batch}
        return loss, terms

    def _entropies(self, u: Tensor, codebook: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean entropy of assignments and the entropy of their mean, in nats."""
        weight = valid.to(u.dtype)
        count = weight.sum()
        summed, total = assignment_sums(u, codebook, weight, 1 / self.inverse_temperature)
        sample = summed / count.clamp(min=1)
        # In evaluation ranks may have different numbers of batches: nothing may wait for another.
        if self.training:
            (count,) = sum_over_ranks(count)
            total = total_over_ranks(total)
        return sample, entropy(total / count.clamp(min=1))
