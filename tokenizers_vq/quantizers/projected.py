"""More than a linear map between latents and the codes of a head.

Reference:
    Ba et al., Layer Normalization, 2016, https://arxiv.org/abs/1607.06450, eq. 3 (without gain and
    bias);
    Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, https://arxiv.org/abs/1606.08415.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import Flat, Tokens, linear
from tokenizers_vq.quantizers.rows import Choose
from tokenizers_vq.quantizers.wrapper import Wrapper

NORMS = ("none", "layer")


class Projected(Wrapper):
    """A head behind a normalisation, a hidden layer, or both.

    A head's own ``code_dim`` is a linear map there and back. This adds what that lacks.
    ``norm="layer"`` gives the latents of each position mean 0 and variance 1 right before the
    head: signs (lfq) and their entropies expect that scale, and latents of a cosine codebook,
    whose length nothing else holds, cannot run away. ``hidden`` makes both maps two layers with
    a GELU between, so that codes of few channels need not lie on a plane in the latent space.

    Args:
        dim: latent width D; None for ``code_dim``.
        inner: the head, of width ``code_dim``.
        code_dim: width d of the inner head; None for ``dim``. Where it differs from ``dim``, or
            with ``hidden``, learned maps lead there and back.
        norm: ``"layer"`` or ``"none"``.
        hidden: width of the hidden layer of either map; None for linear maps.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, K) of the inner head. ``lookup``
        returns vectors of width D.

    Raises:
        ConfigError: the inner head has another width, ``norm`` is none of its choices or leaves
            nothing of a single channel, ``hidden`` is below 1, or there is neither of both.

    Example:
        >>> import torch
        >>> from tokenizers_vq.quantizers.lfq import LFQ
        >>> q = Projected(dim=32, code_dim=10, inner=LFQ(bits=10))
        >>> q(torch.zeros(2, 4, 4, 32)).indices.shape
        torch.Size([2, 4, 4, 1])
    """

    conventions = (*Wrapper.conventions, "norm", "hidden")

    def __init__(
        self,
        dim: int | None = None,
        *,
        inner: Quantizer | Sequence[Quantizer],
        code_dim: int | None = None,
        norm: str = "layer",
        hidden: int | None = None,
    ) -> None:
        super().__init__(dim, inner)
        width = self.dim if code_dim is None else code_dim
        self.check_width(width, "Set code_dim to that.")
        _check_options(norm, hidden, width)
        self.norm = norm
        self.hidden = hidden
        self.additive = hidden is None
        self.map_in = _layers(self.dim, width, hidden)
        self.map_out = _layers(width, self.dim, hidden)

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Map, quantize by the inner head, map back."""
        rows = self._to_inner(u)
        origin = rows if source is u else self._to_inner(source)
        flat = self.inner.quantize_rows(rows, origin, tokens)
        return Flat(_apply(self.map_out, flat.out), flat.indices, flat.loss, flat.terms)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, K)`` of the inner head."""
        return self.inner.encode_rows(self._to_inner(u))

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the inner head's codes of ``indices (N, K)``, mapped back to ``(N, D)``."""
        return _apply(self.map_out, self.inner.decode_rows(indices))

    def soft_rows(self, rows: Tensor, choose: Choose) -> tuple[Tensor, list[Tensor]]:
        """Return indices and distributions of the inner head."""
        return self.inner.soft_rows(self._to_inner(rows), choose)

    def code_update(self, u: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Update the inner head from what it was given."""
        return self.inner.update_rows(self._to_inner(u), indices, skipped)

    def candidates(self, u: Tensor, count: int) -> Tensor:
        """Return the choices ``(N, C, K)`` of the inner head."""
        rows = linear(self.inner.project_in, self._to_inner(u))
        return self.inner.candidates(rows, count)

    def _to_inner(self, u: Tensor) -> Tensor:
        u = _apply(self.map_in, u)
        return F.layer_norm(u, u.shape[-1:]) if self.norm == "layer" else u


def _check_options(norm: str, hidden: int | None, width: int) -> None:
    """Raise ``ConfigError`` for options that mean nothing."""
    if norm not in NORMS:
        raise unknown_name("Projected norm", norm, NORMS)
    if norm == "layer" and width == 1:
        raise ConfigError(
            "Projected: expected at least 2 channels to normalise; got 1, which would always be 0. "
            "Set norm to none."
        )
    if hidden is not None and (not isinstance(hidden, int) or hidden < 1):
        raise ConfigError(
            f"Projected: expected a hidden width of at least 1; got {hidden!r}. "
            "Give a positive whole number, or null for linear maps."
        )
    if norm == "none" and hidden is None:
        raise ConfigError(
            "Projected: expected a norm or a hidden width; got neither. "
            "Leave it out: the code_dim of a head is a linear map."
        )


def _layers(start: int, end: int, hidden: int | None) -> nn.ModuleList:
    """Return the linear layers of a map from ``start`` to ``end`` channels; none if it is none."""
    if hidden is not None:
        return nn.ModuleList([nn.Linear(start, hidden), nn.Linear(hidden, end)])
    return nn.ModuleList([] if start == end else [nn.Linear(start, end)])


def _apply(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """Apply layers with GELUs between, in float32 whatever dtype their weights have."""
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            x = linear(layer, F.gelu(x) if i else x)
    return x
