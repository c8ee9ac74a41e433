"""Vector quantization in few dimensions, searched by direction.

Reference:
    Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, 2023,
    https://arxiv.org/abs/2306.06546, section 3.2, as in the authors' released codecs.
    Differs from the paper's text, not from those: only the search normalises; losses and output
    use codes and latents at their own length.
"""

from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.functional.nearest import nearest_codes
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.flat import squared_distances
from tokenizers_vq.quantizers.vq import VectorQuantizer


class FactorizedVQ(VectorQuantizer):
    """Vector quantization in a low-dimensional space, with the code of the nearest direction.

    The code returned is the row of the codebook as it is, so a long code may be chosen over a
    nearer short one. The codebook learns by gradient.

    Args:
        dim: latent width D; None for ``code_dim``.
        codebook_size: number of codes K.
        code_dim: width d of the codes.
        commitment_weight: pulls latents to their codes.
        codebook_weight: pulls codes to their latents.
        restart_threshold: a code is dead below this share of the mean count; 0, as in the paper,
            never restarts.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Example:
        >>> import torch
        >>> q = FactorizedVQ(dim=64, codebook_size=16, code_dim=8)
        >>> q(torch.zeros(2, 4, 4, 64)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        codebook_size: int,
        code_dim: int = 8,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        restart_threshold: float = 0.0,
    ) -> None:
        super().__init__(
            dim,
            codebook_size=codebook_size,
            code_dim=code_dim,
            commitment_weight=commitment_weight,
            codebook_weight=codebook_weight,
            restart_threshold=restart_threshold,
        )

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the codes nearest in direction."""
        codes = F.normalize(self.codes(), dim=-1)
        return nearest_code(F.normalize(u, dim=-1), codes)[1][:, None]

    def distances(self, u: Tensor) -> Tensor:
        """Return the squared distance ``(N, K)`` of the direction of ``u`` to that of each code."""
        return squared_distances(F.normalize(u, dim=-1), F.normalize(self.codes(), dim=-1))

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the indices ``(N, C, 1)`` of up to ``count`` codes nearest in direction."""
        codes = F.normalize(self.codes(), dim=-1)
        return nearest_codes(F.normalize(u, dim=-1), codes, count)[..., None]

    def _initial_codes(self, size: int, width: int) -> Tensor:
        return super()._initial_codes(size, width).normal_()
