"""Random-projection quantization: labels for self-supervised learning, with nothing to learn.

Reference:
    Chiu et al., Self-supervised Learning with Random-projection Quantizer for Speech Recognition,
    2022, https://arxiv.org/abs/2202.01855, section 3 (the quantizer);
    Zhang et al., Google USM, 2023, https://arxiv.org/abs/2303.01037 (several codebooks).
    Differs from both: codes can be decoded.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.rows import RowQuantizer


class RandomProjection(RowQuantizer):
    """Random projection to a random codebook, both frozen: targets to predict, not a bottleneck.

    A latent is normalised to mean 0 and variance 1 over its channels, projected by a fixed matrix
    per codebook, and takes the index of the code nearest in direction. Latents get a zero
    gradient, and there is neither loss nor update. The matrices are part of the state, since
    labels mean nothing without them.

    ``decode`` returns the shortest latent whose projections are the codes, by the fixed
    pseudo-inverse of all projections. It has mean 0, and tells as much of a latent as its labels
    do: a direction in few dimensions. As long as the projections together have fewer dimensions
    than the latent, it gets the same labels again.

    Args:
        dim: latent width D.
        codebook_size: number of codes K of each codebook.
        projection_dim: width that each codebook projects to.
        codebooks: number of codebooks, each with its own projection.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, codebooks)

    Raises:
        ConfigError: ``dim`` is missing, or a size is below 1.

    Example:
        >>> q = RandomProjection(dim=80, codebook_size=256)
        >>> q(torch.zeros(2, 50, 80)).indices.shape
        torch.Size([2, 50, 1])
    """

    float32_buffers = ("projection", "codebook", "inverse")
    projection: Tensor
    codebook: Tensor
    inverse: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        codebook_size: int = 8192,
        projection_dim: int = 16,
        codebooks: int = 1,
    ) -> None:
        if dim is None:
            raise ConfigError("RandomProjection: expected dim, the width of latents; got none.")
        self._check_sizes({"projection_dim": (projection_dim,)})
        self._check_sizes({"number of codebooks": (codebooks,)})
        super().__init__(dim, dim, (codebook_size,) * codebooks)
        # One draw per codebook: the range of Xavier's rule depends on the shape of each.
        maps = [nn.init.xavier_uniform_(torch.empty(dim, projection_dim)) for _ in range(codebooks)]
        projection = torch.cat(maps, dim=1)
        codes = torch.randn(codebooks, codebook_size, projection_dim)
        # What the mean over channels adds is never seen: leave it out, and decode to mean 0.
        seen = projection.double() - projection.double().mean(0)
        self.register_buffer("projection", projection)
        self.register_buffer("codebook", F.normalize(codes, dim=-1))
        self.register_buffer("inverse", torch.linalg.pinv(seen).float())

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of the codes nearest in direction to the projections."""
        projected = F.layer_norm(u, u.shape[1:]) @ self.projection
        rows = F.normalize(projected.reshape(-1, *self.codebook.shape[::2]), dim=-1)
        return nearest_code(rows.transpose(0, 1), self.codebook)[1].T.contiguous()

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the shortest latents ``(N, D)`` whose projections are the codes of ``indices``."""
        codes = [F.embedding(indices[:, k], table) for k, table in enumerate(self.codebook)]
        return torch.cat(codes, dim=1) @ self.inverse

    def surrogate(self, u: Tensor, codes: Tensor) -> Tensor:
        """Return ``codes`` with a zero gradient to ``u``."""
        return straight_through(0 * u, codes)
