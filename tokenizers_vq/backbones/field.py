"""Decoders of shapes: what comes back is a function of space, sampled where one asks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from tokenizers_vq.backbones.base import Decoder
from tokenizers_vq.errors import ConfigError, check_shape
from tokenizers_vq.types import SignalSpec

OPTIONS: Mapping[str, str] = MappingProxyType(
    {"points": "points: places (B, 3, Q) to give the distance at; None for a lattice."}
)


class FieldDecoder(Decoder):
    """A decoder of latents ``(B, n, D)`` to a signed distance, a function of space.

    A signal of kind ``points`` is a set of samples of such a function, so what is decoded is one
    too: ``(B, 4, Q)``, places and distances there. The places are not in the tokens. They are those
    that ``points`` names, or the nodes of a lattice of ``side**3``. In training they are the places
    of the input, so that ``x_hat`` has its shape and differs from it in the distances alone.

    Args:
        dim: latent width D.
        signal: of kind ``points`` with 4 channels: x, y, z, signed distance.
        side: nodes per axis of the lattice.

    Raises:
        ConfigError: another signal, or a side below 2.
    """

    options = OPTIONS

    def __init__(self, dim: int, signal: SignalSpec, side: int = 32) -> None:
        super().__init__(dim, (1,), signal)
        check_points(signal, type(self).__name__)
        if side < 2:
            raise ConfigError(
                f"{type(self).__name__}: expected a side of 2 or more; got {side}. "
                "Correct the backbone config."
            )
        self.side = side

    @abstractmethod
    def field(self, z_q: Tensor) -> tuple[Tensor, ...]:
        """Return what describes the fields of latents ``(B, n, D)``; computed once per shape."""

    @abstractmethod
    def distances(self, field: Sequence[Tensor], points: Tensor) -> Tensor:
        """Return the distances ``(B, 1, Q)`` of fields at ``points (B, 3, Q)`` in [-1, 1]."""

    def forward(self, z_q: Tensor, points: Tensor | None = None) -> Tensor:
        """Return samples ``(B, 4, Q)`` of the fields of latents ``(B, n, D)``.

        Args:
            z_q: ``(B, n, D)``.
            points: ``(B, 3, Q)`` or ``(1, 3, Q)``; None for the lattice.

        Raises:
            ShapeError: ``z_q`` or ``points`` has another rank or width.
        """
        self.check_latents(z_q)
        if points is None:
            points = lattice(self.side).to(z_q.device)[None]
        check_shape(points, "B 3 Q", type(self).__name__, "Places are x, y, z.")
        points = points.expand(z_q.shape[0], -1, -1)
        return torch.cat([points, self.distances(self.field(z_q), points).to(points.dtype)], dim=1)

    def reconstruct(self, z_q: Tensor, x: Tensor) -> Tensor:
        """Return ``x (B, 4, N)`` with the decoded distances in place of its own."""
        made: Tensor = self(z_q, points=x[:, :3])
        return made

    def cropped(self, x_hat: Tensor, shape: Sequence[int]) -> Tensor:
        """Return ``x_hat``: a field has no samples of its own number."""
        return x_hat


def lattice(side: int) -> Tensor:
    """Return the places ``(3, side**3)`` of a lattice from -1 to 1; z is the fastest axis."""
    ticks = torch.linspace(-1, 1, side)
    return torch.stack(torch.meshgrid(ticks, ticks, ticks, indexing="ij")).flatten(1)


def check_points(signal: SignalSpec, where: str) -> None:
    """Raise ``ConfigError`` unless ``signal`` is samples of a signed distance."""
    if signal.kind != "points" or signal.channels != 4:
        raise ConfigError(
            f"{where}: expected a signal of kind 'points' with 4 channels (x, y, z, distance); got "
            f"{signal.kind!r} with {signal.channels}. Correct the backbone config."
        )
