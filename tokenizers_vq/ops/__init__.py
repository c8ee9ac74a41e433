"""Operations that have a compiled form: every head calls them here and nowhere else."""

from tokenizers_vq.ops.nearest_code import code_stats, nearest_code

__all__ = ["code_stats", "nearest_code"]
