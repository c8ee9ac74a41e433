"""Chamfer distance of two sets of points.

Reference:
    Fan et al., A Point Set Generation Network for 3D Object Reconstruction from a Single Image,
    2017, https://arxiv.org/abs/1612.00603, section 3.2 (with squares).
"""

from __future__ import annotations

from tokenizers_vq.metrics.surfaces import Floats, nearest


def chamfer_l1(real: Floats, fake: Floats) -> float:
    """Return the mean distance of ``real (N, 3)`` to ``fake (M, 3)`` plus the mean of the converse.

    The sum of both, as 3DShape2VecSet reports it; ONet reports half of it.

    Raises:
        ShapeError: a set is empty or no set of points.
    """
    there, back = nearest(real, fake)[0], nearest(fake, real)[0]
    return float(there.mean() + back.mean())


def chamfer_l2(real: Floats, fake: Floats) -> float:
    """Return the mean square distance of ``real`` to ``fake`` plus the mean of the converse.

    Raises:
        ShapeError: a set is empty or no set of points.
    """
    there, back = nearest(real, fake)[0], nearest(fake, real)[0]
    return float((there**2).mean() + (back**2).mean())
