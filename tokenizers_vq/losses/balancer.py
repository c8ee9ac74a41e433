"""EnCodec's balancer: weights that are shares of the gradient, whatever the losses' sizes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.distributed import sum_over_ranks, world_size


class Balancer(nn.Module):
    """Scale the gradients of losses, at the reconstruction, to given shares of one norm.

    Defossez et al., High Fidelity Neural Audio Compression, 2022,
    https://arxiv.org/abs/2210.13438, eq. 5: with ``g_i = d l_i / d x_hat``, its norm ``n_i``
    (averaged over items) and a moving average ``<n_i>``, the gradient at ``x_hat`` is
    ``sum_i R w_i / sum_j w_j * g_i / (eps + <n_i>)``. The averages are free of their start, as
    in Adam.

    Args:
        decay: of the moving averages, per step.
        norm: R, the norm of the whole gradient if the parts were parallel.
        eps: keeps the division finite.
        per_item: average the norms of the items' gradients, else take the norm of the batch's.

    Raises:
        ConfigError: a number is outside its range.
    """

    def __init__(
        self, decay: float = 0.999, norm: float = 1.0, eps: float = 1e-12, per_item: bool = True
    ):
        super().__init__()
        if not (0 <= decay < 1 and norm > 0 and eps > 0):
            raise ConfigError(
                "Balancer: expected a decay in [0, 1) and norm and eps above 0; got "
                f"decay {decay}, norm {norm}, eps {eps}. Correct the objective config."
            )
        self.decay, self.norm, self.eps, self.per_item = decay, norm, eps, per_item
        self.sums: dict[str, Tensor] = {}  # by loss: sum of norms and of items, both decayed

    def forward(
        self, losses: Mapping[str, Tensor], weights: Mapping[str, float], x_hat: Tensor
    ) -> Tensor:
        """Return a ``()`` tensor whose gradient at ``x_hat`` is the balanced one.

        Its value is the weighted sum of the losses. The averages move with every call.

        Args:
            losses: each ``()``, a function of ``x_hat``.
            weights: of each, unnormalised; losses of weight 0 take no part.
            x_hat: the reconstruction ``(B, C, *S)``, inside the graph.
        """
        names = [name for name in losses if weights[name]]
        gradients = {}
        for name in names:
            (gradient,) = torch.autograd.grad(losses[name], x_hat, retain_graph=True)
            gradients[name] = gradient.float()
        averages = self._averages({name: self._norm(g) for name, g in gradients.items()}, x_hat)
        total = sum(weights[name] for name in names)
        balanced = torch.zeros_like(x_hat, dtype=torch.float32)
        for name, gradient in gradients.items():
            scale = self.norm * weights[name] / total / (self.eps + averages[name])
            balanced += scale * gradient
        value = torch.stack([weights[name] * losses[name].detach().float() for name in names]).sum()
        surrogate: Tensor = (balanced * x_hat.float()).sum()
        return surrogate - surrogate.detach() + value

    def _norm(self, gradient: Tensor) -> Tensor:
        if self.per_item:
            gradient = gradient.flatten(1).square().sum(1)
            return gradient.sqrt().mean()
        return gradient.square().sum().sqrt()

    def _averages(self, norms: Mapping[str, Tensor], x_hat: Tensor) -> dict[str, Tensor]:
        """Move the averages by the norms of all processes, and return them."""
        names = list(norms)
        share = sum_over_ranks(torch.stack([norms[name] for name in names]))[0] / world_size()
        items = len(x_hat)
        for name, norm in zip(names, share.unbind(), strict=True):
            new = torch.stack([norm, torch.ones_like(norm)]) * items
            before = self.sums.get(name, torch.zeros_like(new)).to(new.device)
            self.sums[name] = self.decay * before + new
        return {name: self.sums[name][0] / self.sums[name][1] for name in names}

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the averages for a checkpoint."""
        return dict(self.sums)

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take the averages of a checkpoint."""
        self.sums = dict(state)
