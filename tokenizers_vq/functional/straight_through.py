"""Gradient estimators: the value is a code vector, the gradient reaches the latent it replaced."""

import torch
from torch import Tensor
from torch.nn import functional as F


def straight_through(z: Tensor, q: Tensor) -> Tensor:
    """Return the value of ``q`` bit for bit, with the gradient of ``z``.

    ``z - z`` is an exact zero for finite ``z``, so nothing is added to ``q``. The more common
    ``z + (q - z)`` is off by a rounding, and decoded codes then differ from trained ones.

    Args:
        z: ``(..., d)``, finite.
        q: ``(..., d)``, the chosen codes; no gradient flows into them.

    Reference:
        Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons, 2013,
        https://arxiv.org/abs/1308.3432, section 4.
    """
    return q.detach() + (z - z.detach())


def rotate_to(z: Tensor, q: Tensor, eps: float = 1e-6) -> Tensor:
    """Return the value of ``q`` bit for bit; the gradient is turned and scaled from ``q`` to ``z``.

    The Jacobian with respect to ``z`` is ``|q| / |z|`` times the rotation that takes the direction
    of ``z`` to that of ``q``, both held constant. Where no such rotation exists (``z`` or ``q``
    nearly zero, or the two antiparallel) the gradient is that of ``straight_through``.

    Args:
        z: ``(..., d)``, finite.
        q: ``(..., d)``, the chosen codes; no gradient flows into them.
        eps: lengths below it count as zero.

    Reference:
        Fifty et al., Restructuring Vector Quantization with the Rotation Trick, 2024,
        https://arxiv.org/abs/2410.06424, section 4. Differs from the paper: the three degenerate
        cases above.
    """
    start, end = z.detach(), q.detach()
    start_norm = start.norm(dim=-1, keepdim=True)
    end_norm = end.norm(dim=-1, keepdim=True)
    u = F.normalize(start, dim=-1, eps=eps)
    v = F.normalize(end, dim=-1, eps=eps)
    bisector = u + v
    degenerate = (start_norm < eps) | (end_norm < eps) | (bisector.norm(dim=-1, keepdim=True) < eps)
    r = F.normalize(bisector, dim=-1, eps=eps)
    along = 2 * r * (z * r).sum(-1, keepdim=True)
    turned = (end_norm / start_norm.clamp(min=eps)) * (
        z - along + 2 * v * (z * u).sum(-1, keepdim=True)
    )
    return straight_through(torch.where(degenerate, z, turned), q)
