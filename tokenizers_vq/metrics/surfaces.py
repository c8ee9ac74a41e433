"""What the metrics of surfaces share: the nearest points of two sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokenizers_vq.errors import ShapeError

Floats = NDArray[np.float64]


def nearest(points: Floats, others: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return for each of ``points (N, 3)`` the distance and the row of the nearest of ``others``.

    Raises:
        ShapeError: a set is empty or no set of points.
    """
    from scipy.spatial import cKDTree

    for one in (points, others):
        if one.ndim != 2 or one.shape[1] != 3 or not len(one):
            raise ShapeError(
                f"nearest: expected points of shape (N, 3), N of 1 or more; got {one.shape}. "
                "Sample both surfaces first."
            )
    distance, row = cKDTree(others).query(points)
    return np.asarray(distance), np.asarray(row, dtype=np.int64)
