"""Scalar quantization of a trained continuous autoencoder's latents, without training.

Reference:
    Wang et al., Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation,
    2025, https://arxiv.org/abs/2503.16430 (post-training dimension-wise quantization).
    Differs from the paper: the range is fitted per channel instead of being [-5, 5] for all, and
    levels may be fitted to the data for least error.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, DataError, unknown_name
from tokenizers_vq.functional.levels import (
    CLIP,
    gaussian_levels,
    lloyd,
    nearest_levels,
    pick_levels,
)
from tokenizers_vq.quantizers.flat import is_finite, linear, mean_square
from tokenizers_vq.quantizers.rows import RowQuantizer

PLACEMENTS = ("gaussian", "lloyd")
MAX_BITS = 16


class TokenBridge(RowQuantizer):
    """Post-training scalar quantization: every channel of a continuous latent becomes a token.

    Nothing is trained: ``fit`` takes latents of any autoencoder and gives each channel its levels,
    which are saved with the head. The gradient is the identity, so that encoder and decoder may
    be tuned afterwards.

    A language model that predicts the channels one after another does better when coarse ones come
    first. ``order`` says which channel each index column belongs to; ``decode`` undoes it.

    Args:
        dim: latent width D; None for ``channels``.
        channels: number of channels d, and of codebooks K.
        bits: each channel has 2**bits levels.
        placement: where ``fit`` puts levels. ``"gaussian"``: as in the paper, where a normal
            variable of the channel's mean and deviation uses all about equally often.
            ``"lloyd"``: where the mean squared error of the given latents is least; at 6 bits about
            a sixth of the former's on normal latents, with levels that are used unequally.
        latent_range: before ``fit``, levels are those of channels with mean zero whose third
            standard deviation this is.
        order: a permutation of 0..channels - 1; None for the identity.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, d)

    Terms:
        ``distortion``, the mean squared error in the width of the codes; not part of the loss.

    Raises:
        ConfigError: ``bits`` is not in 1..16, ``placement`` is none of the above, or ``order`` is
            no permutation.

    Example:
        >>> q = TokenBridge(dim=16, channels=16)
        >>> q.fit(torch.randn(2, 8, 8, 16))
        >>> q(torch.zeros(2, 4, 4, 16)).indices.shape
        torch.Size([2, 4, 4, 16])
    """

    conventions = (*RowQuantizer.conventions, "order")
    float32_buffers = ("levels",)
    levels: Tensor
    _order: Tensor
    _back: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        channels: int,
        bits: int = 6,
        placement: str = "gaussian",
        latent_range: float = 5.0,
        order: Sequence[int] | None = None,
    ) -> None:
        if not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
            raise ConfigError(
                f"TokenBridge: expected 1 to {MAX_BITS} bits; got {bits!r}. "
                "Every channel has 2**bits levels."
            )
        if placement not in PLACEMENTS:
            raise unknown_name("TokenBridge placement", placement, PLACEMENTS)
        self._check_sizes({"channels": (channels,)})
        order = list(range(channels) if order is None else order)
        if sorted(order) != list(range(channels)):
            raise ConfigError(
                f"TokenBridge: expected order, a permutation of 0..{channels - 1}; "
                f"got {order!r:.80}. Name each channel once."
            )
        super().__init__(dim, channels, (2**bits,) * channels)
        self.placement = placement
        self.order = order
        start = gaussian_levels(2**bits) * (latent_range / CLIP)
        self.register_buffer("levels", start.float().repeat(channels, 1))
        self.register_buffer("_order", torch.tensor(order), persistent=False)
        self.register_buffer("_back", torch.tensor(order).argsort(), persistent=False)

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Give each channel levels that suit its latents.

        Args:
            latents: ``(*any, D)``, a sample of what ``forward`` will get; a few thousand positions
                per level are plenty. Those that are not finite are left out.

        Raises:
            DataError: there are not two finite latents.
        """
        rows = latents.detach().reshape(-1, self.dim).float()
        rows = linear(self.project_in, rows[is_finite(rows)])
        if rows.shape[0] < 2:
            raise DataError(
                f"TokenBridge.fit: expected at least two finite latents; got {rows.shape[0]}. "
                "Pass a tensor (*any, D) of what the encoder makes."
            )
        count = self.codebook_sizes[0]
        if self.placement == "lloyd":
            self.levels.copy_(lloyd(rows, count))
            return
        deviation, mean = torch.std_mean(rows.double(), dim=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)  # a constant channel has no spread
        self.levels.copy_(mean[:, None] + deviation[:, None] * gaussian_levels(count).to(mean))

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, d)`` of the nearest levels; the lower of equally near ones."""
        return nearest_levels(u, self.levels)[:, self._order]

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the levels ``(N, d)`` of ``indices (N, d)``, in the order of the channels."""
        return pick_levels(self.levels, indices[:, self._back])

    def code_losses(
        self, u: Tensor, indices: Tensor, codes: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return no loss and the term ``distortion``."""
        return u.new_zeros(()), {"distortion": mean_square(u, codes, valid).detach()}
