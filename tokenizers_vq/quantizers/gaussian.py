"""A continuous bottleneck: the normal posterior of a variational autoencoder, no codes at all.

Reference:
    Kingma and Welling, Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114,
    eq. 7 and 10, appendix B (the KL term of two normal distributions);
    Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2021,
    https://arxiv.org/abs/2112.10752, appendix G (a small weight on that term).
    Differs from the latter: the term is a mean over positions, not a sum over them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.entropy import weighted_mean
from tokenizers_vq.quantizers.flat import Flat, Tokens, linear
from tokenizers_vq.quantizers.rows import RowQuantizer

LOWEST, HIGHEST = -30.0, 20.0  # of the logarithm of the variance: float32 knows their exponentials


class Gaussian(RowQuantizer):
    """A head without codebooks: a normal posterior for every position, sampled in training.

    It makes a continuous autoencoder out of any backbone, trained like any tokenizer. To get
    tokens afterwards, put a head that is fitted instead of trained in its place, such as
    ``token_bridge`` or ``per_position``: ``tokenizers_vq.fit`` does that and keeps the linear maps.

    Args:
        dim: latent width D; None for ``channels``.
        channels: number of channels d of the bottleneck; None for ``dim``. Where it differs from
            ``dim``, learned linear maps lead there and back.
        kl_weight: of the divergence from the standard normal distribution. Summed over channels,
            so of the order of 1e-6 times the number of positions if the reconstruction term is a
            sum over the signal, and far smaller than 1 if it is a mean.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, 0)

    Terms:
        ``kl`` in nats, sum over channels, mean over positions. ``deviation``, the mean standard
        deviation.

    Raises:
        ConfigError: both widths are missing or one is below 1; ``encode``, ``decode``, ``lookup``
            and ``decode_soft`` are called.

    Example:
        >>> q = Gaussian(dim=16)
        >>> q(torch.zeros(2, 4, 4, 16)).indices.shape
        torch.Size([2, 4, 4, 0])
    """

    def __init__(
        self, dim: int | None = None, *, channels: int | None = None, kl_weight: float = 1e-6
    ) -> None:
        width = dim if channels is None else channels
        if width is None:
            raise ConfigError("Gaussian: expected dim or channels; got neither. Set one of them.")
        super().__init__(dim, width, ())
        self.kl_weight = kl_weight
        self.log_variance = nn.Linear(self.dim, width)

    def quantize_rows(self, rows: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Return the posterior's mean, in training a sample of it, mapped back to width D."""
        mean = linear(self.project_in, rows)
        log_variance = linear(self.log_variance, rows).clamp(LOWEST, HIGHEST)
        deviation = (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        divergence = weighted_mean(kl, tokens.valid)
        out = mean + deviation * torch.randn_like(mean) if self.training else mean
        terms = {
            "kl": divergence.detach(),
            "deviation": weighted_mean(deviation.detach().mean(-1), tokens.valid),
        }
        indices = torch.empty(rows.shape[0], 0, dtype=torch.int64, device=rows.device)
        return Flat(linear(self.project_out, out), indices, self.kl_weight * divergence, terms)

    def encode(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Refuse: there are no codes.

        Raises:
            ConfigError: always.
        """
        raise self._continuous("encode")

    def decode(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Refuse: there are no codes.

        Raises:
            ConfigError: always.
        """
        raise self._continuous("decode")

    def lookup(self, indices: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:
        """Refuse: there are no codes.

        Raises:
            ConfigError: always.
        """
        raise self._continuous("lookup")

    def decode_soft(self, probs: Tensor | Sequence[Tensor]) -> Tensor:
        """Refuse: there are no codes.

        Raises:
            ConfigError: always.
        """
        raise self._continuous("decode_soft")

    @staticmethod
    def _continuous(where: str) -> ConfigError:
        return ConfigError(
            f"{where}: expected a quantizer with codes; got the continuous head 'gaussian'. Fit "
            "token_bridge to its latents: tvq fit TOKENIZER --quantizer token_bridge."
        )
