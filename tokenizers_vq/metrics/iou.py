"""Volumetric intersection over union.

Reference:
    Mescheder et al., Occupancy Networks, 2019, https://arxiv.org/abs/1812.03828, section 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenizers_vq.errors import ShapeError


def iou(real: NDArray[np.bool_], fake: NDArray[np.bool_]) -> float:
    """Return the share of points inside both of those inside either; 1 where there are none.

    Args:
        real: ``(N,)`` bool, whether each of N points, even over the volume, is inside.
        fake: the same for the same points.

    Raises:
        ShapeError: two shapes, or no bool.
    """
    if real.shape != fake.shape or real.dtype != bool or fake.dtype != bool:
        raise ShapeError(
            f"iou: expected two arrays of bool of one shape; got {real.dtype} {real.shape} and "
            f"{fake.dtype} {fake.shape}. Say of the same points whether they are inside."
        )
    either = int((real | fake).sum())
    return int((real & fake).sum()) / either if either else 1.0
