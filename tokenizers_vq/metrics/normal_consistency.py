"""How well the normals of two surfaces agree.

Reference:
    Mescheder et al., Occupancy Networks, 2019, https://arxiv.org/abs/1812.03828, section 4.
"""

from __future__ import annotations

import numpy as np

from tokenizers_vq.metrics.surfaces import Floats, nearest


def normal_consistency(
    real: Floats, fake: Floats, real_normals: Floats, fake_normals: Floats
) -> float:
    """Return the mean ``|n n'|`` of each point and the nearest of the other surface, both ways.

    Args:
        real: points ``(N, 3)``.
        fake: points ``(M, 3)``.
        real_normals: unit vectors ``(N, 3)``.
        fake_normals: unit vectors ``(M, 3)``.

    Raises:
        ShapeError: a set is empty or no set of points.
    """
    there, back = nearest(real, fake)[1], nearest(fake, real)[1]
    one = np.abs(np.einsum("ni,ni->n", real_normals, fake_normals[there])).mean()
    other = np.abs(np.einsum("ni,ni->n", fake_normals, real_normals[back])).mean()
    return float((one + other) / 2)
