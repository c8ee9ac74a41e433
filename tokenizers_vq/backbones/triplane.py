"""Shapes as a short sequence: points in, latents, three planes of features, a distance field out.

Reference:
    Zhang et al., 3D representation in 512-Byte: Variational tokenizer is the key for
    autoregressive 3D generation, 2024, https://arxiv.org/abs/2412.02202 (in-context transformer,
    Gaussian latent, triplane decoder). No code is public and the sizes are not known: widths,
    depths, embeddings, views and losses are ours, and so is everything below that the abstract
    leaves open. The point embedding and the KL weight follow
    Zhang et al., 3DShape2VecSet, 2023, https://arxiv.org/abs/2301.11445, section 5; the planes
    Chan et al., EG3D, 2022, https://arxiv.org/abs/2112.07945, section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizers_vq.backbones.base import TokenEncoder
from tokenizers_vq.backbones.field import FieldDecoder, check_points
from tokenizers_vq.backbones.transformer import (
    EPS,
    MLP,
    Transformer,
    init_weights,
    learned,
)
from tokenizers_vq.errors import ConfigError, check_shape
from tokenizers_vq.functional.places import (
    PLANES,
    SHARPNESS,
    anchors,
    cells,
    fourier,
    projected,
    views,
)
from tokenizers_vq.types import Reconstruction, SignalSpec

if TYPE_CHECKING:
    from tokenizers_vq.tokenizer import Tokenizer

LOG_VAR = (-12.0, 4.0)  # limits of the log variance
SPREAD = 20.0  # of the weights of latents at first; their places are about 0.4 apart
UNIT = 0.1  # distance that the last layer writes as 1
NEARNESS = 30.0  # of the attention of cells, at first; the second head of three sees further
PLACE = 0.25  # weight of places at first: beside them, shapes have to be seen


class TriplaneEncoder(TokenEncoder):
    """In-context transformer from points to an ordered sequence of M latents.

    The points and M queries stand in one sequence and attend to each other; the queries are what is
    kept. Each becomes a mean and a log variance of a Gaussian. In training a sample of it is
    quantized and ``model/kl`` is its divergence from the standard normal, the mean over latents and
    channels; everywhere else the latent is the mean.

    A query is learned, and starts as a point at its own place (``anchors``): neighbours in the
    sequence are neighbours in space, so that means over the sequence, which the coarse scales of a
    multi-scale head quantize, are means over regions. To this it adds what it sees of the points
    around its place (``views``): otherwise nearly all of a latent at first is its place, and many
    steps pass before it tells shapes apart.

    The encoder reads the ``points`` samples that are nearest to the surface, of equally near ones
    the first. It does not need the others: points of a scan with distance 0 are enough. Their order
    does not count, but it decides which are read where there are more.

    Args:
        dim: latent width D.
        signal: of kind ``points`` with 4 channels.
        points: most samples that are read.
        num_tokens: number of latents M.
        width: width W of the transformer.
        layers: number of blocks.
        heads: attention heads per block.
        frequencies: per axis; sines and cosines of ``2**k pi x`` for k below it.

    Shapes:
        x (B, 4, N) -> z (B, M, D)

    Raises:
        ConfigError: another signal, heads that do not divide the width, or a count below 1.
        ShapeError: ``x`` has another shape.

    Example:
        >>> signal = SignalSpec("points", channels=4)
        >>> encoder = TriplaneEncoder(8, signal, num_tokens=4, width=16, layers=1, heads=2)
        >>> encoder(torch.zeros(2, 4, 10)).shape
        torch.Size([2, 4, 8])
    """

    any_length = True
    places: Tensor

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        points: int = 2048,
        num_tokens: int = 128,
        width: int = 512,
        layers: int = 8,
        heads: int = 8,
        frequencies: int = 8,
    ) -> None:
        super().__init__(dim, (1,), signal)
        check_points(signal, "TriplaneEncoder")
        if min(points, num_tokens, layers, frequencies) < 1:
            raise ConfigError(
                "TriplaneEncoder: expected points, num_tokens, layers and frequencies of 1 or "
                f"more; got {points}, {num_tokens}, {layers}, {frequencies}. Correct the config."
            )
        self.points, self.counts, self.frequencies = points, (num_tokens,), frequencies
        self.embed = nn.Linear(6 * frequencies + 4, width)
        self.queries = learned(num_tokens, width)
        self.view = nn.Linear(len(SHARPNESS) * (6 * frequencies + 4), width)
        self.transformer = Transformer(width, layers, heads)
        self.to_latent = nn.Linear(width, 2 * dim)
        self.register_buffer("places", anchors(num_tokens), persistent=False)
        init_weights(self, std=width**-0.5)
        nn.init.trunc_normal_(self.view.weight, std=2 * self.view.in_features**-0.5)
        with torch.no_grad():
            self.to_latent.weight[dim:] = 0
            self.to_latent.bias[dim:] = -4  # narrow: noise would hide what is new

    def forward(self, x: Tensor, num_tokens: int | None = None) -> Tensor:
        """Return latents ``(B, M, D)``, the means, of samples ``(B, 4, N)``."""
        self.check_count(num_tokens)
        return self.posterior(x)[0]

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log variances, ``(B, M, D)`` each, of samples ``(B, 4, N)``.

        Raises:
            ShapeError: ``x`` has another shape.
        """
        self.check_signal(x)
        points = self._nearest(x).mT  # (B, P, 4)
        queries = self.queries + PLACE * self._embedded(F.pad(self.places, (0, 1)))
        queries = queries + self.view(views(points[..., :3], self.places, self.frequencies))
        h = torch.cat([self._embedded(points), queries], dim=1)
        h = self.transformer(h, keep=slice(-self.num_tokens, None))
        mean, log_var = self.to_latent(h).chunk(2, dim=-1)
        return mean, log_var.clamp(*LOG_VAR)

    def training_pass(self, tokenizer: Tokenizer, x: Tensor, step: int) -> Reconstruction:
        """Return the reconstruction from samples of the Gaussians, with the term ``kl``."""
        mean, log_var = self.posterior(x)
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        quantized = tokenizer.quantizer(z)
        x_hat = tokenizer.decoder.reconstruct(quantized.z_q.contiguous(), x)
        return Reconstruction(x_hat, z, quantized, {"kl": divergence(mean, log_var)})

    def _embedded(self, samples: Tensor) -> Tensor:
        """Return rows ``(..., W)`` of samples ``(..., 4)``."""
        waves = fourier(samples[..., :3], self.frequencies)
        rows: Tensor = self.embed(torch.cat([samples, waves], dim=-1))
        return rows

    def _nearest(self, x: Tensor) -> Tensor:
        """Return the samples ``(B, 4, P)`` nearest to the surface, in the order of ``x``."""
        if x.shape[-1] <= self.points:
            return x
        order = x[:, 3].abs().argsort(dim=-1, stable=True)[:, : self.points]
        return x.gather(2, order[:, None].expand(-1, x.shape[1], -1))


class TriplaneDecoder(FieldDecoder):
    """Transformer from latents to three planes of features, and a small network that reads them.

    The latents attend to each other; one query per cell of three coarse planes attends to them, at
    first to those whose places project near to it.
    Latents and cells carry their places, those of ``anchors`` and the centres of the cells, in one
    embedding. Each doubling brings the planes to twice the side and adds a convolution. The feature
    of a place is the sum of what bilinear interpolation finds in the three planes at its
    projections, and of what the latents around it say: each gives features at its own place a and
    their slopes, ``f + G (p - a)``, and their mean counts, with weights ``softmax(-s |p - a|^2)``.
    Four layers turn the feature into the distance, in tenths, to which
    the first of what the latents say is added: a coarse field is there before the planes are.

    Args:
        dim: latent width D.
        signal: of kind ``points`` with 4 channels.
        num_tokens: number of latents M.
        width: width W of the transformer.
        layers: number of blocks in front of the planes.
        heads: attention heads per block.
        plane: side R of the coarse planes.
        doublings: how often the side doubles.
        features: channels of the fine planes.
        frequencies: of the embedding of places; with waves as short as a few cells surfaces are
            rough all over at first.
        side: nodes per axis of the lattice that is decoded without points.

    Shapes:
        z_q (B, M, D) -> (B, 4, Q)

    Raises:
        ConfigError: another signal, heads that do not divide the width, or a count below 1.
        ShapeError: ``z_q`` has another rank or width, or another number of latents.

    Example:
        >>> signal = SignalSpec("points", channels=4)
        >>> decoder = TriplaneDecoder(8, signal, 4, 16, 1, 2, plane=4, doublings=1, features=8)
        >>> decoder(torch.zeros(1, 4, 8), points=torch.zeros(1, 3, 5)).shape
        torch.Size([1, 4, 5])
    """

    places: Tensor
    centres: Tensor
    apart: Tensor

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int,
        signal: SignalSpec,
        num_tokens: int = 128,
        width: int = 512,
        layers: int = 16,
        heads: int = 8,
        *,
        plane: int = 32,
        doublings: int = 2,
        features: int = 32,
        frequencies: int = 6,
        side: int = 64,
    ) -> None:
        super().__init__(dim, signal, side)
        if min(num_tokens, layers, plane, features) < 1 or doublings < 0:
            raise ConfigError(
                "TriplaneDecoder: expected num_tokens, layers, plane and features of 1 or more; "
                f"got {num_tokens}, {layers}, {plane}, {features}. Correct the backbone config."
            )
        self.plane, self.frequencies = plane, frequencies
        self.embed = nn.Linear(dim, width)
        self.place = nn.Linear(6 * frequencies + 3, width)
        self.positions = learned(num_tokens, width)
        self.transformer = Transformer(width, layers, heads)
        self.cells = learned(3, width)  # one per plane
        self.register_buffer("places", anchors(num_tokens), persistent=False)
        self.register_buffer("centres", cells(plane), persistent=False)
        self.look = CrossBlock(width, heads)
        shares = [1.0 if head % 2 == 0 else 1 / 3 for head in range(heads)]
        self.nearness = nn.Parameter((NEARNESS * torch.tensor(shares)).log())
        self.register_buffer("apart", projected(self.centres, self.places), persistent=False)
        channels = [features * 2**k for k in range(doublings, -1, -1)]
        self.to_plane = nn.Linear(width, channels[0])
        self.up = nn.Sequential(*(Doubling(a, b) for a, b in pairwise(channels)))
        self.to_local = nn.Linear(width, 4 * features)
        self.spread = nn.Parameter(torch.tensor(SPREAD).log())
        hidden = 4 * features
        self.read = nn.Sequential(
            nn.Linear(features, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, 1),
        )  # fmt: skip
        init_weights(self, std=width**-0.5)
        for layer in self.read:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.last_layer, std=0.05)
        with torch.no_grad():
            self.look.proj.weight.mul_(2)

    def check_latents(self, z_q: Tensor) -> None:
        """Raise ``ShapeError`` unless ``z_q`` is ``(B, M, D)``."""
        dims = f"B {len(self.positions)} {self.dim}"
        check_shape(z_q, dims, "TriplaneDecoder", "Latents are channels last.")

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last layer of the network that reads the planes."""
        last: Any = self.read[-1]
        weight: Tensor = last.weight
        return weight

    def field(self, z_q: Tensor) -> tuple[Tensor, Tensor]:
        """Return planes ``(B, 3, F, R', R')`` and rows ``(B, M, 4 F)`` of latents ``(B, M, D)``.

        A row holds features at the origin, then their slopes along x, y and z.
        """
        places = PLACE * self._placed(self.places)
        h = self.transformer(self.embed(z_q) + self.positions + places) + places
        at, *slopes = self.to_local(h).chunk(4, dim=-1)
        shifts = (slope * x for slope, x in zip(slopes, self.places.mT[..., None], strict=True))
        rows = torch.cat([at - sum(shifts), *slopes], dim=-1)
        return self._planes(h), rows

    def distances(self, field: Sequence[Tensor], points: Tensor) -> Tensor:
        """Return the distances ``(B, 1, Q)`` at ``points (B, 3, Q)`` of planes and rows."""
        planes, rows = field
        local = self._local(rows, points.to(rows.dtype))  # (B, Q, F)
        found = local.mT
        for k, axes in enumerate(PLANES):
            places = points[:, list(axes)].mT[:, None].to(planes.dtype)  # (B, 1, Q, 2)
            found = (
                found
                + F.grid_sample(
                    planes[:, k],
                    places,
                    mode="bilinear",
                    padding_mode="border",
                    align_corners=False,
                )[:, :, 0]
            )
        distances: Tensor = UNIT * (self.read(found.mT) + local[..., :1]).mT
        return distances

    def _planes(self, h: Tensor) -> Tensor:
        """Return the planes ``(B, 3, F, R', R')`` of rows ``(B, M, W)``."""
        queries = self.cells.repeat_interleave(self.plane**2, dim=0)
        queries = queries + PLACE * self._placed(self.centres)
        bias = -self.nearness.exp()[:, None, None] * self.apart  # (heads, cells, M)
        seen = self.look(queries.expand(h.shape[0], -1, -1), h, bias)
        coarse = self.to_plane(seen).unflatten(1, (3, self.plane, self.plane))
        planes: Tensor = self.up(coarse.permute(0, 1, 4, 2, 3).flatten(0, 1))
        return planes.reshape(-1, 3, *planes.shape[1:])

    def _local(self, rows: Tensor, points: Tensor) -> Tensor:
        """Return what latents say at ``points (B, 3, Q)``, ``(B, Q, F)``."""
        places = self.places.to(points.dtype)
        near = 2 * points.mT @ places.mT - places.square().sum(-1)  # |p|^2 - |p - a|^2
        weights = (self.spread.exp() * near).softmax(dim=-1).to(rows.dtype)
        at, *slopes = (weights @ rows).chunk(4, dim=-1)
        along = points.movedim(1, 0)[..., None]  # (3, B, Q, 1)
        local: Tensor = at + sum(slope * x for slope, x in zip(slopes, along, strict=True))
        return local

    def _placed(self, places: Tensor) -> Tensor:
        """Return rows ``(N, W)`` of places ``(N, 3)``."""
        waves = fourier(places, self.frequencies)
        rows: Tensor = self.place(torch.cat([places, waves], dim=-1))
        return rows


class CrossBlock(nn.Module):
    """Pre-norm block in which rows look at other rows: attention, then two layers.

    Args:
        width: width W.
        heads: attention heads, a divisor of the width.

    Shapes:
        x (B, N, W), context (B, M, W) -> (B, N, W)
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.proj, self.mlp = nn.Linear(width, width), MLP(width, 2 * width)

    def forward(self, x: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        """Return rows ``(B, N, W)`` that looked at ``context (B, M, W)``.

        ``bias (heads, N, M)`` is added to the products of queries and keys.
        """
        q = self.q(self.norm1(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mask = bias.to(q.dtype).expand(x.shape[0], -1, -1, -1)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = x + self.proj(h)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Doubling(nn.Module):
    """Planes of twice the side, by bilinear interpolation, then a residual convolution of 3 x 3.

    A transposed convolution makes planes that are rough all over at first.

    Args:
        channels: of the planes.
        out: channels afterwards.

    Shapes:
        x (B, C, R, R) -> (B, out, 2 R, 2 R)
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.grow = nn.Sequential(nn.Conv2d(channels, out, 1), up)
        self.smooth = nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the planes ``(B, out, 2 R, 2 R)``."""
        x = self.grow(x)
        out: Tensor = x + self.smooth(F.silu(x))
        return out


def divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return the mean of ``KL(N(mean, exp(log_var)) || N(0, 1))``, ``()``.

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2013,
        https://arxiv.org/abs/1312.6114, appendix B.
    """
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()
