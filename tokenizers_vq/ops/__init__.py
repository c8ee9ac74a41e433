"""Operations that have a compiled form: every head calls them here and nowhere else."""

from tokenizers_vq.ops.nearest_code import (
    code_stats,
    largest_product,
    nearest_code,
    residual_codes,
)

__all__ = ["code_stats", "largest_product", "nearest_code", "residual_codes"]
