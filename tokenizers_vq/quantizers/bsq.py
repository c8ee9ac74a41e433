"""Binary spherical quantization: one bit per channel of a unit vector.

Reference:
    Zhao et al., Image and Video Tokenization with Binary Spherical Quantization, 2024,
    https://arxiv.org/abs/2406.07548, eq. 4-10.
    Differs from the paper: the batch entropy is exact up to 24 bits; the straight-through gradient
    to the unit vector is the identity (the authors' code scales it by d**-0.5).
"""

from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.functional.entropy import weighted_mean
from tokenizers_vq.quantizers.lfq import LFQ


class BSQ(LFQ):
    """Binary spherical quantization: the corner of the cube nearest to the direction of a latent.

    It is LFQ with codes of unit length on normalised latents. The quantization error is bounded
    by ``sqrt(2 - 2 / sqrt(d))``, so commitment is off by default.

    Args:
        dim: latent width D; None for ``bits``.
        bits: number of channels d; the codebook has 2**d codes of entries -d**-0.5 and +d**-0.5.
        entropy_weight: of both entropy terms; often annealed from three times its final value.
        diversity_weight: of the batch entropy relative to the sample entropy.
        commitment_weight: of the squared distance between unit latent and code. As in the released
            models it is summed over channels, not averaged.
        inverse_temperature: sharpness of the soft assignment in the entropy terms.
        flip_rate: see ``LFQ``.
        bit_order: see ``LFQ``.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Raises:
        ConfigError: ``bits`` is not in 1..62, ``flip_rate`` not in 0..1, or there is no such order.

    Example:
        >>> import torch
        >>> q = BSQ(dim=32, bits=10)
        >>> q(torch.zeros(2, 4, 4, 32)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        bits: int,
        entropy_weight: float = 0.1,
        diversity_weight: float = 1.0,
        commitment_weight: float = 0.0,
        inverse_temperature: float = 1.0,
        flip_rate: float = 0.0,
        bit_order: str = "little",
    ) -> None:
        super().__init__(
            dim,
            bits=bits,
            entropy_weight=entropy_weight,
            diversity_weight=diversity_weight,
            commitment_weight=commitment_weight,
            inverse_temperature=inverse_temperature,
            scale=max(bits, 1) ** -0.5,
            flip_rate=flip_rate,
            bit_order=bit_order,
        )

    def _signal(self, u: Tensor) -> Tensor:
        return F.normalize(u, dim=-1)

    def _commitment(self, u: Tensor, codes: Tensor, valid: Tensor) -> Tensor:
        return weighted_mean((u - codes).square().sum(-1), valid)
