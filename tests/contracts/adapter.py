"""What the properties of the contract know of a head: a few verbs, whoever wrote it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

D = 6


class NotOffered(Exception):
    """The head has no such option, so a property about it says nothing."""


@dataclass(frozen=True)
class Out:
    """What a head answers.

    Attributes:
        z_q: in the layout of the latents.
        indices: ``(B, *grid, K)``.
        given: the loss as the library returned it, of any shape.
    """

    z_q: Tensor
    indices: Tensor
    given: Tensor

    @property
    def loss(self) -> Tensor:
        """The loss, ``()``."""
        return self.given.sum()


class Adapter:
    """A freshly built head, the same one at every construction.

    Args:
        name: of the head.
        changes: options that a property asks for: ``projected`` (latents are wider than codes),
            ``kmeans`` (the codebook starts from data), ``decay`` (of moving averages), ``bits``
            (of a binary head), ``straight_through`` (that estimator), ``prefix`` (built so that
            prefixes decode), ``layout`` (one of ``layouts``), ``seed``.

    Attributes:
        module: the head itself.
        traits: which groups of properties concern it: ``statistics`` (learns by moving averages),
            ``loss``, ``residual``, ``commits`` (each residual level has a commitment), ``identity``
            (the gradient to the latent should be that at the output), ``binary`` (joint entropy),
            ``fixed_point`` (codes are their own nearest).
        layouts: the layouts of latents that its documentation names.
    """

    traits: frozenset[str]
    layouts: tuple[str, ...]
    module: nn.Module

    def __init__(self, name: str, **changes: Any) -> None:
        self.name = name
        self.changes = changes
        self.dim = int(changes.get("bits", D))
        torch.manual_seed(changes.get("seed", 1))
        self.module = self.make()

    def make(self) -> nn.Module:
        """Build the head.

        Raises:
            NotOffered: it has no such option.
        """
        raise NotImplementedError

    def like(self, **changes: Any) -> "Adapter":
        """Return another new head, changed in the named options only."""
        return type(self)(self.name, **self.changes | changes)

    def latents(self, batch: int = 3, tokens: int = 10, seed: int = 0) -> Tensor:
        """Return normal latents ``(batch, tokens, D)``, or four places per axis in a layout."""
        grids = {"image": (4, 4), "video": (2, 4, 4), "image_last": (4, 4), "vectors": ()}
        layout = self.changes.get("layout", "sequence")
        grid = grids.get(layout, (tokens,))
        shape = (self.dim, *grid) if layout in ("image", "video", "channels") else (*grid, self.dim)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, *shape, generator=generator)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Out:
        """Quantize; training or evaluation is the module's."""
        raise NotImplementedError

    def encode(self, z: Tensor) -> Tensor:
        """Return the indices in evaluation."""
        with torch.no_grad():
            return self.evaluate().forward(z).indices

    def decode(self, indices: Tensor) -> Tensor:
        """Return the latents of indices as ``forward`` gave them."""
        raise NotImplementedError

    def update(self, z: Tensor, indices: Tensor) -> None:
        """Let the codebook learn, where forward has not done it."""

    def freeze(self) -> None:
        """Keep the codebook from learning, in the way the documentation says."""
        raise NotOffered("no switch")

    def level_losses(self, z: Tensor) -> list[Tensor]:
        """Return the loss of each residual level, with gradient to ``z``."""
        raise NotOffered("no residual levels")

    @property
    def size(self) -> int:
        """The number of codes of the first codebook."""
        raise NotImplementedError

    def learn(self, z: Tensor) -> Out:
        """Do what a training step does to the codebook."""
        out = self.forward(z)
        self.update(z, out.indices)
        return out

    def evaluate(self) -> "Adapter":
        """Go to evaluation, and return this."""
        self.module.eval()
        return self

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the state."""
        return {key: value.clone() for key, value in self.module.state_dict().items()}
