"""Vector quantization with a frozen table seen through one learned linear map.

Reference:
    Zhu et al., Addressing Representation Collapse in Vector Quantized Models with One Linear
    Layer, 2024, https://arxiv.org/abs/2411.02038, eq. 8-10.
    Differs from the paper: none. As in the authors' configurations, the commitment weight
    multiplies the commitment term.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.functional.nearest import nearest_codes
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.flat import code_width, mean_square, squared_distances
from tokenizers_vq.quantizers.rows import RowQuantizer


class SimVQ(RowQuantizer):
    """Vector quantization whose codes all move together.

    The codebook is a frozen normal table times a learned matrix. Each step moves every code, also
    those that nothing chose, so none is left behind.

    Args:
        dim: latent width D; None for ``code_dim``.
        codebook_size: number of codes K.
        code_dim: width d of the codes; None for ``dim``.
        commitment_weight: pulls latents to their codes.
        codebook_weight: pulls codes to their latents.
        bias: give the linear map a bias.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Raises:
        ConfigError: both widths are missing, or a size is below 1.

    Example:
        >>> q = SimVQ(dim=8, codebook_size=16)
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    table: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        codebook_size: int,
        code_dim: int | None = None,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        bias: bool = False,
    ) -> None:
        width = code_width("SimVQ", dim, code_dim)
        super().__init__(dim, width, (codebook_size,))
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.register_buffer("table", torch.randn(codebook_size, width) * width**-0.5)
        self.linear = nn.Linear(width, width, bias=bias)

    def codes(self) -> Tensor:
        """Return the codebook ``(K, d)`` float32."""
        bias = None if self.linear.bias is None else self.linear.bias.float()
        return F.linear(self.table.float(), self.linear.weight.float(), bias)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the nearest codes; the lowest of equally near ones."""
        return nearest_code(u, self.codes())[1][:, None]

    def distances(self, u: Tensor) -> Tensor:
        """Return the squared distance ``(N, K)`` of ``u (N, d)`` to each code."""
        return squared_distances(u, self.codes())

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the indices ``(N, C, 1)`` of up to ``count`` nearest codes, nearest first."""
        return nearest_codes(u, self.codes(), count)[..., None]

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, 1)``, as the search saw them."""
        return F.embedding(indices[:, 0], self.codes())

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the terms ``commitment`` and ``codebook``."""
        commitment = mean_square(u, codes.detach(), valid)
        codebook = mean_square(codes, u.detach(), valid)
        loss = self.commitment_weight * commitment + self.codebook_weight * codebook
        return loss, {"commitment": commitment.detach(), "codebook": codebook.detach()}
