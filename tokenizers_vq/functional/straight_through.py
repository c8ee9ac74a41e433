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


def directional(z: Tensor, q: Tensor, variance: float = 5e-3) -> Tensor:
    """Return ``z`` moved by its distance to ``q``, nearly in the direction of ``q``.

    ``z + |q - z| unit(q - z + noise)`` with the direction held constant: the gradient with respect
    to ``q`` is the direction times that of the distance, and with respect to ``z`` the identity
    minus it. So codes learn from what is done with the output, without a loss of their own.

    Args:
        z: ``(..., d)``, finite.
        q: ``(..., d)``, the chosen codes, with gradient.
        variance: of the normal noise on each component of the direction. Random numbers come from
            torch's global generator.

    Reference:
        Vali et al., DiVeQ: Differentiable Vector Quantization Using the Reparameterization Trick,
        2025, https://arxiv.org/abs/2509.26469.
    """
    gap = q - z
    noise = variance**0.5 * torch.randn_like(gap)
    direction = F.normalize(gap.detach() + noise, dim=-1)
    out: Tensor = z + gap.norm(dim=-1, keepdim=True) * direction
    return out


def synchronous(out: Tensor, q: Tensor, rate: float) -> Tensor:
    """Return the value of ``out`` bit for bit; ``rate`` of its gradient also goes to ``q``.

    The codes then move with what is done with the output at once, not one step after the latents.

    Args:
        out: ``(..., d)``.
        q: ``(..., d)``, finite: the chosen codes, with gradient.
        rate: 0 to 1; nu in the paper.

    Reference:
        Huh et al., Straightening Out the Straight-Through Estimator: Overcoming Optimization
        Challenges in Vector Quantized Networks, 2023, https://arxiv.org/abs/2305.08842, section 4.
    """
    return out + rate * (q - q.detach())
