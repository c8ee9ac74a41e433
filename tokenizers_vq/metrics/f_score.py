"""F-score of two sets of points: how much of each is within a threshold of the other.

Reference:
    Tatarchenko et al., What Do Single-view 3D Reconstruction Networks Learn?, 2019,
    https://arxiv.org/abs/1905.03678, section 4.2.
"""

from __future__ import annotations

from tokenizers_vq.metrics.surfaces import Floats, nearest


def f_score(real: Floats, fake: Floats, threshold: float) -> float:
    """Return ``2 P R / (P + R)`` of ``real (N, 3)`` and ``fake (M, 3)``; 0 where nothing is near.

    P is the share of ``fake`` within ``threshold`` of ``real``, R the share of ``real`` within it
    of ``fake``. Always state the threshold with the number, and in which unit: 0.02 in a box of
    side 2 (3DShape2VecSet), 1 % of the side of the box (Tatarchenko et al.), or another.

    Raises:
        ShapeError: a set is empty or no set of points.
    """
    precision = float((nearest(fake, real)[0] <= threshold).mean())
    recall = float((nearest(real, fake)[0] <= threshold).mean())
    both = precision + recall
    return 2 * precision * recall / both if both > 0 else 0.0
