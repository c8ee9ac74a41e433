"""A face brought upright to a square chip by its five points.

Reference:
    Umeyama, Least-Squares Estimation of Transformation Parameters Between Two Point Patterns, 1991,
    eq. 40 to 42. The template is that of dlib's five-point model, in a chip with a quarter of
    margin on every side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

MARGIN = 0.25
# outer and inner corner of the eye on the left of the picture's right, then of the other; nose base
TEMPLATE = np.array(
    [[0.8596, 0.2135], [0.6461, 0.2290], [0.1206, 0.2137], [0.3341, 0.2291], [0.4901, 0.6278]]
)


def template(order: str, side: int) -> np.ndarray:
    """Return where points of that order lie in a chip, ``(n, 2)`` pixels.

    TokBench's points have no eye corners; their two eye centres are used alone.
    """
    points = TEMPLATE
    if order == "eyes_nose_mouth":
        points = np.stack([TEMPLATE[2:4].mean(0), TEMPLATE[0:2].mean(0)])
    return (MARGIN + points) / (1 + 2 * MARGIN) * side


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the ``(2, 3)`` rotation, scale and shift from ``source (n, 2)`` to ``target``."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    s, t = source - mean_s, target - mean_t
    u, values, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = u @ np.diag(sign) @ vt
    scale = float((values * sign).sum() / s.var(0).sum())
    shift = mean_t - scale * rotation @ mean_s
    return np.column_stack([scale * rotation, shift])


def chip(
    picture: np.ndarray, points: Sequence[tuple[float, float]], order: str, side: int = 150
) -> np.ndarray:
    """Return the aligned face ``(side, side, 3)`` of an RGB picture, bilinear."""
    target = template(order, side)
    source = np.array(points, dtype=np.float64)[: len(target)]
    back = similarity(target, source)  # PIL wants the way from the chip to the picture
    return np.asarray(
        Image.fromarray(picture).transform(
            (side, side), Image.Transform.AFFINE, tuple(back.ravel()), Image.Resampling.BILINEAR
        )
    )
