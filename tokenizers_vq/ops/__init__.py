"""Operations that have a compiled form: every head calls them here and nowhere else."""

from torch import Tensor

from tokenizers_vq.functional import nearest


def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distance ``(N,)`` float32 and index ``(N,)`` int64 of the nearest code.

    Args:
        x: ``(N, d)``.
        codebook: ``(K, d)``; equal distances give the lowest index.
    """
    return nearest.nearest_code(x, codebook)
