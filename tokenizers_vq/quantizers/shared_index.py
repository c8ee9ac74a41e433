"""One index for several codebooks, each with its own share of the channels.

Reference:
    Qu et al., TokenFlow: Unified Image Tokenizer for Multimodal Understanding and Generation,
    2024, https://arxiv.org/abs/2412.03069, section 3 (the shared mapping).
    Differs from the paper: this is the quantizer alone; ``multi_scale`` around it makes the rest.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.entropy import weighted_mean
from tokenizers_vq.functional.nearest import nearest_codes
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.flat import squared_distances
from tokenizers_vq.quantizers.vq import VectorQuantizer


class SharedIndex(VectorQuantizer):
    """Several codebooks searched together: the index with the smallest weighted sum of distances.

    Part p has its own channels and its own codebook of the same size, both normalised to unit
    length; the output is the concatenation of the parts' codes. So the same token means a semantic
    code and the pixels that go with it. It is a vector quantizer on concatenated unit vectors.

    Args:
        dim: latent width D; None for the sum of the parts.
        codebook_size: number of codes K, of each part.
        parts: number of channels of each part.
        weights: of each part's squared distance in the search; None for all 1.
        codebook_update: ``"gradient"`` or ``"ema"``.
        decay: of the moving averages of counts and sums, per update.
        commitment_weight: pulls latents to their codes.
        codebook_weight: pulls codes to their latents; only with ``"gradient"``.
        restart_threshold: a code is dead below this share of the mean count; 0 never restarts.
        kmeans_init: ``"none"``, or the seeding ``"random"`` or ``"plusplus"``.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 1)

    Terms:
        ``commitment``, with ``"gradient"`` ``codebook``, and for part p ``distance/p``: the mean
        squared distance between unit latent and unit code, between 0 and 4.

    Raises:
        ConfigError: ``parts`` are no widths, ``weights`` are no positive numbers or not one per
            part, or an option is none of its choices.

    Example:
        >>> q = SharedIndex(dim=40, codebook_size=16, parts=(32, 8))
        >>> q(torch.zeros(2, 4, 4, 40)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    conventions = (*VectorQuantizer.conventions, "parts", "weights")
    float32_buffers: tuple[str, ...] = (*VectorQuantizer.float32_buffers, "_scale")
    _scale: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        codebook_size: int,
        parts: Sequence[int],
        weights: Sequence[float] | None = None,
        codebook_update: str = "gradient",
        decay: float = 0.99,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        restart_threshold: float = 0.05,
        kmeans_init: str = "none",
    ) -> None:
        parts, weights = _checked(parts, weights)
        super().__init__(
            dim,
            codebook_size=codebook_size,
            code_dim=sum(parts),
            codebook_update=codebook_update,
            decay=decay,
            commitment_weight=commitment_weight,
            codebook_weight=codebook_weight,
            restart_threshold=restart_threshold,
            kmeans_init=kmeans_init,
        )
        self.parts = list(parts)
        self.weights = weights
        scale = torch.tensor(weights).sqrt().repeat_interleave(torch.tensor(parts))
        self.register_buffer("_scale", scale, persistent=False)
        with torch.no_grad():  # averages of unit vectors start from unit vectors
            self.codebook.copy_(self.codes())
            if codebook_update == "ema":
                self.cluster_sum.copy_(self.codebook)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, 1)`` of the smallest weighted sums of distances."""
        return nearest_code(self._signal(u) * self._scale, self.codes() * self._scale)[1][:, None]

    def distances(self, u: Tensor) -> Tensor:
        """Return the weighted sum of the parts' squared distances ``(N, K)`` to each code."""
        return squared_distances(self._signal(u) * self._scale, self.codes() * self._scale)

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the indices ``(N, C, 1)`` of up to ``count`` smallest sums, smallest first."""
        u, codes = self._signal(u) * self._scale, self.codes() * self._scale
        return nearest_codes(u, codes, count)[..., None]

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the terms of a vector quantizer and the distance of each part."""
        loss, terms = super().code_losses(u, indices, codes, valid)
        square = (self._signal(u) - codes).detach().square()
        for i, part in enumerate(torch.split(square, self.parts, dim=-1)):
            terms[f"distance/{i}"] = weighted_mean(part.sum(-1), valid)
        return loss, terms

    def codes(self) -> Tensor:
        """Return the codebook ``(K, d)`` float32, each part of each code of unit length."""
        return self._signal(self.codebook.float())

    def _signal(self, u: Tensor) -> Tensor:
        """Return ``u (N, d)`` with each part of unit length."""
        return torch.cat([F.normalize(x, dim=-1) for x in torch.split(u, self.parts, dim=-1)], -1)

    def _start_from(self, u: Tensor) -> None:
        """Cluster by the distance of the search, and undo its weights."""
        super()._start_from(u * self._scale)
        self.codebook.div_(self._scale)
        if self.codebook_update == "ema":
            self.cluster_sum.div_(self._scale)


def _checked(
    parts: Sequence[int], weights: Sequence[float] | None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    if not isinstance(parts, Sequence) or not parts or not all(_is_width(n) for n in parts):
        raise ConfigError(
            f"SharedIndex: expected parts, a list of widths of at least 1; got {parts!r:.80}. "
            "Give one per codebook, as in [32, 8]."
        )
    weights = [1.0] * len(parts) if weights is None else weights
    if (
        not isinstance(weights, Sequence)
        or len(weights) != len(parts)
        or not all(isinstance(w, int | float) and w > 0 for w in weights)
    ):
        raise ConfigError(
            f"SharedIndex: expected {len(parts)} weights above 0; got {weights!r:.80}. "
            "Give one per part."
        )
    return tuple(parts), tuple(float(weight) for weight in weights)


def _is_width(n: object) -> bool:
    return isinstance(n, int) and n >= 1
