"""A fixed codebook: the shortest vectors of a dense lattice.

Reference:
    Zhao et al., Image and Video Tokenization with Binary Spherical Quantization, 2024,
    https://arxiv.org/abs/2406.07548, whose authors' code has had the Leech codebook since 2025;
    Conway and Sloane, Sphere Packings, Lattices and Groups, 3rd edition, 1999,
    https://doi.org/10.1007/978-1-4757-6568-7, chapter 4.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.errors import unknown_name
from tokenizers_vq.functional import lattices
from tokenizers_vq.functional.nearest import nearest_codes
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.flat import mean_square
from tokenizers_vq.quantizers.rows import RowQuantizer

LATTICES = {"d4": lattices.d4, "e8": lattices.e8, "leech": lattices.leech}
CHUNK = 256  # rows searched at a time: tables of 4,096 sums each, 4 MiB


class Lattice(RowQuantizer):
    """Lattice quantization: the minimal vector of a lattice nearest to the direction of a latent.

    These vectors are the points of a sphere that touch the most neighbours, so they cover it
    evenly, and nothing has to be learned. With ``"leech"`` the search is exact and looks at 4,856
    sums instead of 196,560.

    The order of the codes is that of ``functional.lattices``: by the shape of the vector, then
    where its entries lie, fastest the signs (for the last family, the odd entry).

    Args:
        dim: latent width D; None for the lattice's.
        lattice: ``"leech"``, 196,560 codes in 24 dimensions; ``"e8"``, 240 in 8; ``"d4"``, 24 in 4.
        commitment_weight: pulls the directions of latents to their codes.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Raises:
        ConfigError: there is no such lattice.

    Example:
        >>> q = Lattice(dim=32, lattice="e8")
        >>> q(torch.zeros(2, 4, 4, 32)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    conventions = (*RowQuantizer.conventions, "lattice")
    float32_buffers = ("_codes",)
    _codes: Tensor
    _words: Tensor
    _octads: Tensor

    def __init__(
        self, dim: int | None = None, *, lattice: str = "leech", commitment_weight: float = 0.0
    ) -> None:
        if lattice not in LATTICES:
            raise unknown_name("Lattice", lattice, LATTICES)
        codes = LATTICES[lattice]()
        super().__init__(dim, codes.shape[1], (codes.shape[0],))
        self.lattice = lattice
        self.commitment_weight = commitment_weight
        self.register_buffer("_codes", codes, persistent=False)
        if lattice == "leech":
            words = lattices.golay_code()
            self.register_buffer("_words", words, persistent=False)
            self.register_buffer("_octads", lattices.octads(words), persistent=False)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the codes nearest in direction."""
        u = F.normalize(u, dim=-1)
        if self.lattice != "leech":
            return nearest_code(u, self._codes)[1][:, None]
        if torch.compiler.is_compiling():  # a graph with any number of rows has no loop over them
            return lattices.nearest_leech(u, self._words, self._octads)[:, None]
        parts = [
            lattices.nearest_leech(x, self._words, self._octads) for x in torch.split(u, CHUNK)
        ]
        return torch.cat(parts)[:, None]

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the indices ``(N, C, 1)`` of up to ``count`` nearest codes, nearest first."""
        return nearest_codes(F.normalize(u, dim=-1), self._codes, count)[..., None]

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``indices (N, 1)``, of unit length."""
        return F.embedding(indices[:, 0], self._codes)

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the term ``commitment``."""
        commitment = mean_square(F.normalize(u, dim=-1), codes, valid)
        return self.commitment_weight * commitment, {"commitment": commitment.detach()}

    def surrogate(self, u: Tensor, codes: Tensor) -> Tensor:
        """Return ``codes`` with the gradient of the normalised latents."""
        return straight_through(F.normalize(u, dim=-1), codes)
