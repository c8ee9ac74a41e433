"""Quantizer heads, one file each; see ``registry.QUANTIZERS`` for their names."""
