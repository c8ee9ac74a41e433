"""Quantization by a classifier: logits over the codes, relaxed by Gumbel noise in training.

Reference:
    Jang et al., Categorical Reparameterization with Gumbel-Softmax, 2016,
    https://arxiv.org/abs/1611.01144, eq. 1-2 and section 2.2 (straight-through);
    Esser et al., Taming Transformers for High-Resolution Image Synthesis, 2020,
    https://arxiv.org/abs/2012.09841, whose released code has this head.
    Differs from the latter: no noise outside training, so that encoding repeats itself.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.entropy import weighted_mean
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.quantizers.flat import Flat, Tokens, code_width, linear
from tokenizers_vq.quantizers.rows import RowQuantizer


class Gumbel(RowQuantizer):
    """Gumbel-softmax quantization: a learned linear map scores the codes, the highest wins.

    In training Gumbel noise is added to the scores, and the output is the code that wins, with the
    gradient of the mean of the codes under the softmax of the sum. Without ``straight_through`` it
    is that mean, sharper as ``temperature`` falls: every code learns from every latent, but the
    decoder sees mixtures that evaluation never makes, so the temperature has to fall to about 0.1
    during training. In evaluation it is the code with the highest score.

    Training holds a few matrices of tokens times codes: 8,192 of each take 256 MiB per matrix.

    Args:
        dim: latent width D; None for ``code_dim``.
        codebook_size: number of codes K.
        code_dim: width d of the codes; None for ``dim``.
        straight_through: quantize in training too, as in the released code; False relaxes.
        temperature: of the softmax, above 0. A plain attribute: usually annealed.
        uniform_weight: pulls the distribution over codes of each latent to the uniform one.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Terms:
        ``uniform``: KL divergence in nats from the uniform distribution, mean over tokens.

    Raises:
        ConfigError: both widths are missing, a size is below 1, or the temperature is not above 0.

    Example:
        >>> q = Gumbel(dim=8, codebook_size=16)
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        codebook_size: int,
        code_dim: int | None = None,
        straight_through: bool = True,
        temperature: float = 1.0,
        uniform_weight: float = 5e-4,
    ) -> None:
        width = code_width("Gumbel", dim, code_dim)
        if temperature <= 0:
            raise ConfigError(
                f"Gumbel: expected a temperature above 0; got {temperature}. "
                "For hard choices in training set straight_through."
            )
        super().__init__(dim, width, (codebook_size,))
        self.straight_through = straight_through
        self.temperature = temperature
        self.uniform_weight = uniform_weight
        self.scores = nn.Linear(width, codebook_size)
        self.codebook = nn.Parameter(torch.randn(codebook_size, width))

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the highest scores."""
        return linear(self.scores, u).argmax(1, keepdim=True)

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the indices ``(N, C, 1)`` of up to ``count`` highest scores, highest first."""
        scores = linear(self.scores, u)
        return scores.topk(min(count, scores.shape[1]), dim=1).indices[..., None]

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, 1)``."""
        return F.embedding(indices[:, 0], self.codebook.float())

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize ``u (N, d)``: relaxed in training, the highest score in evaluation."""
        scores = linear(self.scores, u)
        uniform = self._uniform(scores, tokens.valid)
        if source is not u:
            scores = linear(self.scores, source)
        if self.training:
            scores = scores - torch.empty_like(scores).exponential_().log()  # Gumbel noise
        p = torch.softmax(scores / self.temperature, dim=1)
        indices = scores.argmax(1, keepdim=True)
        if self.training and not self.straight_through:
            out = p @ self.codebook.float()
        else:
            out = self._one_code(p, indices)
        # A token that is not finite stands for nothing that a code could learn from.
        out = torch.where(tokens.valid[:, None], out, out.detach())
        loss = self.uniform_weight * uniform
        return Flat(out, indices, loss, {"uniform": uniform.detach()})

    def _one_code(self, p: Tensor, indices: Tensor) -> Tensor:
        """Return the chosen codes; they get the gradient of the output, scores that of the mean."""
        codes = self.code_vectors(indices)
        mean = p @ self.codebook.detach().float()
        return straight_through(mean, codes) + (codes - codes.detach())

    def _uniform(self, scores: Tensor, valid: Tensor) -> Tensor:
        log_ratio = torch.log_softmax(scores, dim=1) + math.log(scores.shape[1])  # ln(p K)
        return weighted_mean((log_ratio.exp() * log_ratio).mean(1), valid)
