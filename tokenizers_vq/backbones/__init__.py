"""Encoders with their decoders, one file each; see ``registry.ENCODERS`` for their names."""
